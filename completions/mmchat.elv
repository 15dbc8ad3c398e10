
use builtin;
use str;

set edit:completion:arg-completer[mmchat] = {|@words|
    fn spaces {|n|
        builtin:repeat $n ' ' | str:join ''
    }
    fn cand {|text desc|
        edit:complex-candidate $text &display=$text' '(spaces (- 14 (wcswidth $text)))$desc
    }
    var command = 'mmchat'
    for word $words[1..-1] {
        if (str:has-prefix $word '-') {
            break
        }
        set command = $command';'$word
    }
    var completions = [
        &'mmchat'= {
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
            cand ask 'Ask one model, or a route that fails over; the answer streams to stdout'
            cand config 'Look at the config: where it is, whether it is right, what is in force'
            cand mock 'Serve scripted models on loopback, to try things out and to test: speed, length and every kind of failure'
            cand demo 'See it work, against a scripted model on this machine: no key, no config, no network'
            cand completions 'Print the completions of a shell'
            cand help 'Print this message or the help of the given subcommand(s)'
        }
        &'mmchat;ask'= {
            cand -m 'A model, a route, or endpoint/upstream-id [env: MMCHAT_MODEL]'
            cand --model 'A model, a route, or endpoint/upstream-id [env: MMCHAT_MODEL]'
            cand -f 'Attach a text file'
            cand --file 'Attach a text file'
            cand -s 'The system text'
            cand --system 'The system text'
            cand -o 'Any parameter of the endpoint; the value is JSON, or text'
            cand --option 'Any parameter of the endpoint; the value is JSON, or text'
            cand --temperature 'Sampling temperature'
            cand --max-tokens 'Upper limit of the answer, in tokens'
            cand --format 'What stdout holds: text, markdown, json or jsonl [env: MMCHAT_FORMAT]'
            cand --output 'Write the answer to a file instead of stdout; -: stdout'
            cand --timeout 'For the whole answer, such as 90s or 5m [env: MMCHAT_TIMEOUT]'
            cand --stdin-timeout 'The longest silence of standard input; 0: any'
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --stats 'Time, tokens, speed and cost on stderr, at the end'
            cand --raw 'Show Markdown as it comes, even on a terminal'
            cand --buffer 'Hold the answer until it is whole, so that a cut one can be started again elsewhere'
            cand --no-stream 'Ask for the whole answer at once instead of a stream'
            cand --dry-run 'Print the request as a curl command, whatever the format, and send nothing'
            cand --no-stdin 'Do not read standard input [env: MMCHAT_NO_STDIN]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
        }
        &'mmchat;config'= {
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
            cand path 'Print the path of the config file'
            cand check 'Check the config file and tell every problem in it'
            cand show 'Print what is in force, each setting with its source, without secrets'
            cand schema 'Print the JSON schema of the config file'
            cand help 'Print this message or the help of the given subcommand(s)'
        }
        &'mmchat;config;path'= {
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
        }
        &'mmchat;config;check'= {
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
        }
        &'mmchat;config;show'= {
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
        }
        &'mmchat;config;schema'= {
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
        }
        &'mmchat;config;help'= {
            cand path 'Print the path of the config file'
            cand check 'Check the config file and tell every problem in it'
            cand show 'Print what is in force, each setting with its source, without secrets'
            cand schema 'Print the JSON schema of the config file'
            cand help 'Print this message or the help of the given subcommand(s)'
        }
        &'mmchat;config;help;path'= {
        }
        &'mmchat;config;help;check'= {
        }
        &'mmchat;config;help;show'= {
        }
        &'mmchat;config;help;schema'= {
        }
        &'mmchat;config;help;help'= {
        }
        &'mmchat;mock'= {
            cand --port 'The port; 0: one that is free'
            cand --ttft 'Time to the first token'
            cand --tps 'Tokens a second; 0: no delay'
            cand --tokens 'Tokens of an answer'
            cand --reasoning 'Tokens of thinking before it'
            cand --fault 'Every answer fails so'
            cand --model 'A further model: NAME=WORDS, words joined with `+` as in a name'
            cand --key 'The key that clients must bring'
            cand --seed 'What the texts are made from'
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --no-usage 'Report no usage'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
        }
        &'mmchat;demo'= {
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
        }
        &'mmchat;completions'= {
            cand --config 'The config file [env: MMCHAT_CONFIG]'
            cand --plain 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]'
            cand -v 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand --verbose 'Tell every attempt on stderr [env: MMCHAT_LOG]'
            cand -h 'Print help'
            cand --help 'Print help'
        }
        &'mmchat;help'= {
            cand ask 'Ask one model, or a route that fails over; the answer streams to stdout'
            cand config 'Look at the config: where it is, whether it is right, what is in force'
            cand mock 'Serve scripted models on loopback, to try things out and to test: speed, length and every kind of failure'
            cand demo 'See it work, against a scripted model on this machine: no key, no config, no network'
            cand completions 'Print the completions of a shell'
            cand help 'Print this message or the help of the given subcommand(s)'
        }
        &'mmchat;help;ask'= {
        }
        &'mmchat;help;config'= {
            cand path 'Print the path of the config file'
            cand check 'Check the config file and tell every problem in it'
            cand show 'Print what is in force, each setting with its source, without secrets'
            cand schema 'Print the JSON schema of the config file'
        }
        &'mmchat;help;config;path'= {
        }
        &'mmchat;help;config;check'= {
        }
        &'mmchat;help;config;show'= {
        }
        &'mmchat;help;config;schema'= {
        }
        &'mmchat;help;mock'= {
        }
        &'mmchat;help;demo'= {
        }
        &'mmchat;help;completions'= {
        }
        &'mmchat;help;help'= {
        }
    ]
    $completions[$command]
}
