#compdef @PROGRAM@

_@FUNCTION@() {
    local -a reply
    reply=("${(@f)$($words[1] completions candidates "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    if [[ $reply[1] == :files ]]; then
        _files
    else
        compadd -V candidates -- $reply
    fi
}

if [[ $funcstack[1] == _@PROGRAM@ ]]; then
    _@FUNCTION@ "$@"
else
    compdef _@FUNCTION@ @PROGRAM@
fi
