# fish completion of diffusectl. Verbs and flags come from the program's own --help, numbers of jobs
# from the daemon: nothing here has to follow a change of the program.

function __diffusectl_verb
    set -l words (commandline -opc)
    set -q words[2]; and echo $words[2]
end

function __diffusectl_verbs
    diffusectl --help 2>/dev/null | string replace -rf '^  ([a-z]+)  *([a-z].*)$' '$1\t$2'
end

function __diffusectl_flags
    diffusectl (__diffusectl_verb) --help 2>/dev/null | string match -ar -- '(?:^| )--[a-z][a-z-]*' |
        string trim | sort -u
end

function __diffusectl_jobs
    diffusectl list 2>/dev/null | string replace -rf '^ *([0-9]+)  (\S+) .*$' '$1\t$2'
end

function __diffusectl_models
    diffusectl model list 2>/dev/null | tail -n +2 | string replace -rf '^(\S+) .*$' '$1'
end

function __diffusectl_loadable
    diffusectl models 2>/dev/null | string match -r '^[^ ].*'
end

function __diffusectl_is
    contains -- (__diffusectl_verb) $argv
end

complete -c diffusectl -f
complete -c diffusectl -n 'not __diffusectl_verb' -a '(__diffusectl_verbs)'
complete -c diffusectl -n __diffusectl_verb -a '(string match -q -- "-*" (commandline -ct); and __diffusectl_flags)'
complete -c diffusectl -n '__diffusectl_is show cancel wait get delete watch' -a '(__diffusectl_jobs)'
complete -c diffusectl -n '__diffusectl_is generate get' -s o -l output -rF
complete -c diffusectl -n '__diffusectl_is generate' -l prompt-file -rF
complete -c diffusectl -n '__diffusectl_is generate' -l prompts-file -rF
complete -c diffusectl -n '__diffusectl_is generate' -l image -rF
complete -c diffusectl -n '__diffusectl_is generate' -l mask -rF
complete -c diffusectl -n '__diffusectl_is generate' -l preview -rF
complete -c diffusectl -n '__diffusectl_is generate' -l model -x -a '(__diffusectl_loadable)'
complete -c diffusectl -n '__diffusectl_is list' -l state -x -a 'queued running done failed cancelled'
complete -c diffusectl -n '__diffusectl_is model; and test (count (commandline -opc)) -eq 2' -a 'install verify list load unload'
complete -c diffusectl -n '__diffusectl_is model; and contains install (commandline -opc)' -F
complete -c diffusectl -n '__diffusectl_is model; and contains verify (commandline -opc)' -a '(__diffusectl_models)'
complete -c diffusectl -n '__diffusectl_is model; and contains load (commandline -opc)' -a '(__diffusectl_loadable)'
