# bash completion for @PROGRAM@

_@FUNCTION@() {
    local line=${COMP_LINE:0:COMP_POINT} words reply
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    mapfile -t reply < <("${words[0]}" completions candidates "${words[@]:1}" 2> /dev/null)
    if [[ ${reply[0]} == :files ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "${words[-1]}")
        return
    fi
    # What stands before the last colon is a word of its own to bash.
    local before=
    [[ $COMP_WORDBREAKS == *:* && ${words[-1]} == *:* ]] && before=${words[-1]%:*}:
    COMPREPLY=("${reply[@]#"$before"}")
}
complete -o nosort -F _@FUNCTION@ @PROGRAM@
