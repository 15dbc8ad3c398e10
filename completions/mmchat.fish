# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_mmchat_global_optspecs
    string join \n config= plain v/verbose h/help V/version
end

function __fish_mmchat_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_mmchat_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_mmchat_using_subcommand
    set -l cmd (__fish_mmchat_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c mmchat -n "__fish_mmchat_needs_command" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_needs_command" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_needs_command" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_needs_command" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_needs_command" -s V -l version -d 'Print version'
complete -c mmchat -n "__fish_mmchat_needs_command" -f -a "ask" -d 'Ask one model, or a route that fails over; the answer streams to stdout'
complete -c mmchat -n "__fish_mmchat_needs_command" -f -a "config" -d 'Look at the config: where it is, whether it is right, what is in force'
complete -c mmchat -n "__fish_mmchat_needs_command" -f -a "mock" -d 'Serve scripted models on loopback, to try things out and to test: speed, length and every kind of failure'
complete -c mmchat -n "__fish_mmchat_needs_command" -f -a "demo" -d 'See it work, against a scripted model on this machine: no key, no config, no network'
complete -c mmchat -n "__fish_mmchat_needs_command" -f -a "completions" -d 'Print the completions of a shell'
complete -c mmchat -n "__fish_mmchat_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -s m -l model -d 'A model, a route, or endpoint/upstream-id [env: MMCHAT_MODEL]' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -s f -l file -d 'Attach a text file' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -s s -l system -d 'The system text' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -s o -l option -d 'Any parameter of the endpoint; the value is JSON, or text' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l temperature -d 'Sampling temperature' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l max-tokens -d 'Upper limit of the answer, in tokens' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l format -d 'What stdout holds: text, markdown, json or jsonl [env: MMCHAT_FORMAT]' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l output -d 'Write the answer to a file instead of stdout; -: stdout' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l timeout -d 'For the whole answer, such as 90s or 5m [env: MMCHAT_TIMEOUT]' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l stdin-timeout -d 'The longest silence of standard input; 0: any' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l stats -d 'Time, tokens, speed and cost on stderr, at the end'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l raw -d 'Show Markdown as it comes, even on a terminal'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l buffer -d 'Hold the answer until it is whole, so that a cut one can be started again elsewhere'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l no-stream -d 'Ask for the whole answer at once instead of a stream'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l dry-run -d 'Print the request as a curl command, whatever the format, and send nothing'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l no-stdin -d 'Do not read standard input [env: MMCHAT_NO_STDIN]'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand ask" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -f -a "path" -d 'Print the path of the config file'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -f -a "check" -d 'Check the config file and tell every problem in it'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -f -a "show" -d 'Print what is in force, each setting with its source, without secrets'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -f -a "schema" -d 'Print the JSON schema of the config file'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and not __fish_seen_subcommand_from path check show schema help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from path" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from path" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from path" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from path" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from check" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from check" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from show" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from schema" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from schema" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from schema" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "path" -d 'Print the path of the config file'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "check" -d 'Check the config file and tell every problem in it'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print what is in force, each setting with its source, without secrets'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "schema" -d 'Print the JSON schema of the config file'
complete -c mmchat -n "__fish_mmchat_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l port -d 'The port; 0: one that is free' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l ttft -d 'Time to the first token' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l tps -d 'Tokens a second; 0: no delay' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l tokens -d 'Tokens of an answer' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l reasoning -d 'Tokens of thinking before it' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l fault -d 'Every answer fails so' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l model -d 'A further model: NAME=WORDS, words joined with `+` as in a name' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l key -d 'The key that clients must bring' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l seed -d 'What the texts are made from' -r
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l no-usage -d 'Report no usage'
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand mock" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand demo" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand demo" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand demo" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand demo" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand completions" -l config -d 'The config file [env: MMCHAT_CONFIG]' -r -F
complete -c mmchat -n "__fish_mmchat_using_subcommand completions" -l plain -d 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
complete -c mmchat -n "__fish_mmchat_using_subcommand completions" -s v -l verbose -d 'Tell every attempt on stderr [env: MMCHAT_LOG]'
complete -c mmchat -n "__fish_mmchat_using_subcommand completions" -s h -l help -d 'Print help'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and not __fish_seen_subcommand_from ask config mock demo completions help" -f -a "ask" -d 'Ask one model, or a route that fails over; the answer streams to stdout'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and not __fish_seen_subcommand_from ask config mock demo completions help" -f -a "config" -d 'Look at the config: where it is, whether it is right, what is in force'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and not __fish_seen_subcommand_from ask config mock demo completions help" -f -a "mock" -d 'Serve scripted models on loopback, to try things out and to test: speed, length and every kind of failure'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and not __fish_seen_subcommand_from ask config mock demo completions help" -f -a "demo" -d 'See it work, against a scripted model on this machine: no key, no config, no network'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and not __fish_seen_subcommand_from ask config mock demo completions help" -f -a "completions" -d 'Print the completions of a shell'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and not __fish_seen_subcommand_from ask config mock demo completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "path" -d 'Print the path of the config file'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "check" -d 'Check the config file and tell every problem in it'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Print what is in force, each setting with its source, without secrets'
complete -c mmchat -n "__fish_mmchat_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "schema" -d 'Print the JSON schema of the config file'
