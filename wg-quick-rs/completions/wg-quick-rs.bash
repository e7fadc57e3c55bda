# Completion of wg-quick-rs for bash.

_wg_quick_rs() {
    local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words='' found
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words='up down save strip reload check reresolve qr completions help'
    elif [[ ${COMP_WORDS[COMP_CWORD - 1]} == --netns ]]; then
        words="init $(cd /run/netns 2>/dev/null && printf '%s ' *)"
    else
        case $verb in
            down | save | reload | reresolve)
                words=$(wg-rs show interfaces 2>/dev/null)
                ;;
            up | strip | check | qr)
                compopt -o filenames 2>/dev/null
                words=$(cd /etc/wireguard 2>/dev/null && shopt -s nullglob && printf '%s\n' *.conf)
                words=${words//.conf/}
                [[ $verb == up ]] && words+=' --netns'
                while IFS= read -r found; do
                    [[ $found == *.conf || -d $found ]] && COMPREPLY+=("$found")
                done < <(compgen -f -- "$word")
                ;;
            completions) words='bash zsh fish' ;;
        esac
    fi
    while IFS= read -r found; do
        COMPREPLY+=("$found")
    done < <(compgen -W "$words" -- "$word")
}

complete -F _wg_quick_rs wg-quick-rs
