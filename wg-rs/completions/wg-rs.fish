# fish completion for wg-rs, which prints it itself
wg-rs completions fish | source
