# fish completion for @PROGRAM@

function __@FUNCTION@
    set -l words (commandline -opc)
    set -l reply ($words[1] completions candidates $words[2..] (commandline -ct) 2> /dev/null)
    if test "$reply[1]" = :files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $reply
    end
end
complete -c @PROGRAM@ -f -k -a '(__@FUNCTION@)'
