"""The scripts of `swarmctl completion`: they hand the line to `swarmctl __complete` and offer what it prints."""

from __future__ import annotations

BASH = r"""# bash completion of swarmctl:  source <(swarmctl completion bash)
_swarmctl() {
    local line words cur reply
    line="${COMP_LINE:0:COMP_POINT}"
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    cur="${words[${#words[@]}-1]}"
    COMPREPLY=()
    while IFS= read -r reply; do
        reply="${reply%%$'\t'*}"
        # The shell sees what stands after a colon (hello:latest) or an equals sign as a word of its own.
        [[ "$cur" == *:* && "$COMP_WORDBREAKS" == *:* ]] && reply="${reply#"${cur%"${cur##*:}"}"}"
        [[ "$cur" == -*=* && "$COMP_WORDBREAKS" == *=* ]] && reply="${reply#"${cur%%=*}="}"
        COMPREPLY+=("$reply")
    done < <(swarmctl __complete "${words[@]:1}" 2>/dev/null)
}
complete -o bashdefault -o default -F _swarmctl swarmctl
[[ "$(alias docker 2>/dev/null)" == *swarmctl* ]] && complete -o bashdefault -o default -F _swarmctl docker
true
"""

ZSH = r"""#compdef swarmctl
# zsh completion of swarmctl:  source <(swarmctl completion zsh)
_swarmctl() {
    local -a found
    local value help
    while IFS=$'\t' read -r value help; do
        found+=("${value//:/\\:}${help:+:$help}")
    done < <(swarmctl __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( $#found )); then
        _describe 'swarmctl' found
    else
        _files
    fi
}
if [ "$funcstack[1]" = "_swarmctl" ]; then
    _swarmctl "$@"
else
    compdef _swarmctl swarmctl
fi
"""

FISH = r"""# fish completion of swarmctl:  swarmctl completion fish | source
function __swarmctl_complete
    set -l words (commandline -opc) (commandline -ct)
    swarmctl __complete $words[2..-1] 2>/dev/null
end
complete -c swarmctl -a '(__swarmctl_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
