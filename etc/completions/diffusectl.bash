# bash completion of diffusectl. Verbs, flags and words come from the program's own --help, numbers
# of jobs from the daemon: nothing here has to follow a change of the program.

# Words of the flag $2 of the verb $1: "(a b c)" at the end of its help line.
_diffusectl_values() {
    "${COMP_WORDS[0]}" "$1" --help 2>/dev/null |
        sed -n "s/^ *\(-., \)\?$2[ =].*(\([a-z][a-z0-9. -]*\))\$/\2/p"
}

_diffusectl() {
    local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local verb=${COMP_WORDS[1]-} words

    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z]\+\)  *[a-z].*/\1/p') --help --version"
    elif [[ $cur == -* ]]; then
        words=$("$program" "$verb" --help 2>/dev/null | grep -oE -- '(^| )--[a-z][a-z-]*' | sort -u)
    elif [[ $verb == generate && $prev == --model ]] || [[ $verb == model && ${COMP_WORDS[2]} == load ]]; then
        words=$("$program" models 2>/dev/null | grep -v '^ ')
    else
        case $prev in
        -o | --output | --prompt-file | --prompts-file | --image | --mask | --preview | --models | --model | --config | -c | --devel)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
        --state) words="queued running done failed cancelled" ;;
        --*) words=$(_diffusectl_values "$verb" "$prev") ;;
        esac
        case $verb in
        show | cancel | wait | get | delete | watch)
            [ -n "$words" ] || words=$("$program" list 2>/dev/null | awk 'NR > 1 { print $1 }')
            ;;
        model)
            [ "$COMP_CWORD" -eq 2 ] && words="install verify list load unload"
            if [ "${COMP_WORDS[2]}" = install ] && [ "$COMP_CWORD" -gt 2 ]; then
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
            fi
            [ "${COMP_WORDS[2]}" = verify ] && [ "$COMP_CWORD" -gt 2 ] &&
                words=$("$program" model list 2>/dev/null | awk 'NR > 1 { print $1 }')
            ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _diffusectl diffusectl
