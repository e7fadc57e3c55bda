# Completion of wg-quick-rs for fish.

function __wg_quick_rs_verb
    set -l words (commandline -opc)
    test (count $words) -gt 1; and contains -- $words[2] $argv
end

function __wg_quick_rs_files
    for file in /etc/wireguard/*.conf
        string replace -r '.*/(.*)\.conf$' '$1' -- $file
    end
    __fish_complete_suffix .conf
end

function __wg_quick_rs_running
    wg-rs show interfaces 2>/dev/null | string split -n ' '
end

function __wg_quick_rs_netns
    printf '%s\n' init pid: path: docker: podman:
    for name in /run/netns/*
        string replace -r '.*/' '' -- $name
    end
end

complete -c wg-quick-rs -f
complete -c wg-quick-rs -n __fish_use_subcommand -a up -d 'Bring a tunnel up'
complete -c wg-quick-rs -n __fish_use_subcommand -a down -d 'Take it down'
complete -c wg-quick-rs -n __fish_use_subcommand -a save -d 'Write its state into its file'
complete -c wg-quick-rs -n __fish_use_subcommand -a strip -d 'Print what wg(8) takes of a file'
complete -c wg-quick-rs -n __fish_use_subcommand -a reload -d 'Bring a running tunnel to its file'
complete -c wg-quick-rs -n __fish_use_subcommand -a check -d 'Say all that is wrong with files'
complete -c wg-quick-rs -n __fish_use_subcommand -a reresolve -d 'Ask again for peers known by name'
complete -c wg-quick-rs -n __fish_use_subcommand -a qr -d 'Show a file as a QR code'
complete -c wg-quick-rs -n __fish_use_subcommand -a completions -d 'Print these completions'
complete -c wg-quick-rs -n __fish_use_subcommand -a help -d 'Print a summary'
complete -c wg-quick-rs -n '__wg_quick_rs_verb up strip check qr' -a '(__wg_quick_rs_files)'
complete -c wg-quick-rs -n '__wg_quick_rs_verb down save reload reresolve' -a '(__wg_quick_rs_running)'
complete -c wg-quick-rs -n '__wg_quick_rs_verb up' -l netns -x -a '(__wg_quick_rs_netns)' -d 'Where it is to live'
complete -c wg-quick-rs -n '__wg_quick_rs_verb completions' -a 'bash zsh fish'
