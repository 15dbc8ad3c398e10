
using namespace System.Management.Automation
using namespace System.Management.Automation.Language

Register-ArgumentCompleter -Native -CommandName 'mmchat' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    $commandElements = $commandAst.CommandElements
    $command = @(
        'mmchat'
        for ($i = 1; $i -lt $commandElements.Count; $i++) {
            $element = $commandElements[$i]
            if ($element -isnot [StringConstantExpressionAst] -or
                $element.StringConstantType -ne [StringConstantType]::BareWord -or
                $element.Value.StartsWith('-') -or
                $element.Value -eq $wordToComplete) {
                break
        }
        $element.Value
    }) -join ';'

    $completions = @(switch ($command) {
        'mmchat' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('ask', 'ask', [CompletionResultType]::ParameterValue, 'Ask one model, or a route that fails over; the answer streams to stdout')
            [CompletionResult]::new('config', 'config', [CompletionResultType]::ParameterValue, 'Look at the config: where it is, whether it is right, what is in force')
            [CompletionResult]::new('mock', 'mock', [CompletionResultType]::ParameterValue, 'Serve scripted models on loopback, to try things out and to test: speed, length and every kind of failure')
            [CompletionResult]::new('demo', 'demo', [CompletionResultType]::ParameterValue, 'See it work, against a scripted model on this machine: no key, no config, no network')
            [CompletionResult]::new('completions', 'completions', [CompletionResultType]::ParameterValue, 'Print the completions of a shell')
            [CompletionResult]::new('help', 'help', [CompletionResultType]::ParameterValue, 'Print this message or the help of the given subcommand(s)')
            break
        }
        'mmchat;ask' {
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'A model, a route, or endpoint/upstream-id [env: MMCHAT_MODEL]')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'A model, a route, or endpoint/upstream-id [env: MMCHAT_MODEL]')
            [CompletionResult]::new('-f', '-f', [CompletionResultType]::ParameterName, 'Attach a text file')
            [CompletionResult]::new('--file', '--file', [CompletionResultType]::ParameterName, 'Attach a text file')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'The system text')
            [CompletionResult]::new('--system', '--system', [CompletionResultType]::ParameterName, 'The system text')
            [CompletionResult]::new('-o', '-o', [CompletionResultType]::ParameterName, 'Any parameter of the endpoint; the value is JSON, or text')
            [CompletionResult]::new('--option', '--option', [CompletionResultType]::ParameterName, 'Any parameter of the endpoint; the value is JSON, or text')
            [CompletionResult]::new('--temperature', '--temperature', [CompletionResultType]::ParameterName, 'Sampling temperature')
            [CompletionResult]::new('--max-tokens', '--max-tokens', [CompletionResultType]::ParameterName, 'Upper limit of the answer, in tokens')
            [CompletionResult]::new('--format', '--format', [CompletionResultType]::ParameterName, 'What stdout holds: text, markdown, json or jsonl [env: MMCHAT_FORMAT]')
            [CompletionResult]::new('--output', '--output', [CompletionResultType]::ParameterName, 'Write the answer to a file instead of stdout; -: stdout')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'For the whole answer, such as 90s or 5m [env: MMCHAT_TIMEOUT]')
            [CompletionResult]::new('--stdin-timeout', '--stdin-timeout', [CompletionResultType]::ParameterName, 'The longest silence of standard input; 0: any')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--stats', '--stats', [CompletionResultType]::ParameterName, 'Time, tokens, speed and cost on stderr, at the end')
            [CompletionResult]::new('--raw', '--raw', [CompletionResultType]::ParameterName, 'Show Markdown as it comes, even on a terminal')
            [CompletionResult]::new('--buffer', '--buffer', [CompletionResultType]::ParameterName, 'Hold the answer until it is whole, so that a cut one can be started again elsewhere')
            [CompletionResult]::new('--no-stream', '--no-stream', [CompletionResultType]::ParameterName, 'Ask for the whole answer at once instead of a stream')
            [CompletionResult]::new('--dry-run', '--dry-run', [CompletionResultType]::ParameterName, 'Print the request as a curl command, whatever the format, and send nothing')
            [CompletionResult]::new('--no-stdin', '--no-stdin', [CompletionResultType]::ParameterName, 'Do not read standard input [env: MMCHAT_NO_STDIN]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'mmchat;config' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('path', 'path', [CompletionResultType]::ParameterValue, 'Print the path of the config file')
            [CompletionResult]::new('check', 'check', [CompletionResultType]::ParameterValue, 'Check the config file and tell every problem in it')
            [CompletionResult]::new('show', 'show', [CompletionResultType]::ParameterValue, 'Print what is in force, each setting with its source, without secrets')
            [CompletionResult]::new('schema', 'schema', [CompletionResultType]::ParameterValue, 'Print the JSON schema of the config file')
            [CompletionResult]::new('help', 'help', [CompletionResultType]::ParameterValue, 'Print this message or the help of the given subcommand(s)')
            break
        }
        'mmchat;config;path' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'mmchat;config;check' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'mmchat;config;show' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'mmchat;config;schema' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'mmchat;config;help' {
            [CompletionResult]::new('path', 'path', [CompletionResultType]::ParameterValue, 'Print the path of the config file')
            [CompletionResult]::new('check', 'check', [CompletionResultType]::ParameterValue, 'Check the config file and tell every problem in it')
            [CompletionResult]::new('show', 'show', [CompletionResultType]::ParameterValue, 'Print what is in force, each setting with its source, without secrets')
            [CompletionResult]::new('schema', 'schema', [CompletionResultType]::ParameterValue, 'Print the JSON schema of the config file')
            [CompletionResult]::new('help', 'help', [CompletionResultType]::ParameterValue, 'Print this message or the help of the given subcommand(s)')
            break
        }
        'mmchat;config;help;path' {
            break
        }
        'mmchat;config;help;check' {
            break
        }
        'mmchat;config;help;show' {
            break
        }
        'mmchat;config;help;schema' {
            break
        }
        'mmchat;config;help;help' {
            break
        }
        'mmchat;mock' {
            [CompletionResult]::new('--port', '--port', [CompletionResultType]::ParameterName, 'The port; 0: one that is free')
            [CompletionResult]::new('--ttft', '--ttft', [CompletionResultType]::ParameterName, 'Time to the first token')
            [CompletionResult]::new('--tps', '--tps', [CompletionResultType]::ParameterName, 'Tokens a second; 0: no delay')
            [CompletionResult]::new('--tokens', '--tokens', [CompletionResultType]::ParameterName, 'Tokens of an answer')
            [CompletionResult]::new('--reasoning', '--reasoning', [CompletionResultType]::ParameterName, 'Tokens of thinking before it')
            [CompletionResult]::new('--fault', '--fault', [CompletionResultType]::ParameterName, 'Every answer fails so')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'A further model: NAME=WORDS, words joined with `+` as in a name')
            [CompletionResult]::new('--key', '--key', [CompletionResultType]::ParameterName, 'The key that clients must bring')
            [CompletionResult]::new('--seed', '--seed', [CompletionResultType]::ParameterName, 'What the texts are made from')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--no-usage', '--no-usage', [CompletionResultType]::ParameterName, 'Report no usage')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'mmchat;demo' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'mmchat;completions' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The config file [env: MMCHAT_CONFIG]')
            [CompletionResult]::new('--plain', '--plain', [CompletionResultType]::ParameterName, 'No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Tell every attempt on stderr [env: MMCHAT_LOG]')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'mmchat;help' {
            [CompletionResult]::new('ask', 'ask', [CompletionResultType]::ParameterValue, 'Ask one model, or a route that fails over; the answer streams to stdout')
            [CompletionResult]::new('config', 'config', [CompletionResultType]::ParameterValue, 'Look at the config: where it is, whether it is right, what is in force')
            [CompletionResult]::new('mock', 'mock', [CompletionResultType]::ParameterValue, 'Serve scripted models on loopback, to try things out and to test: speed, length and every kind of failure')
            [CompletionResult]::new('demo', 'demo', [CompletionResultType]::ParameterValue, 'See it work, against a scripted model on this machine: no key, no config, no network')
            [CompletionResult]::new('completions', 'completions', [CompletionResultType]::ParameterValue, 'Print the completions of a shell')
            [CompletionResult]::new('help', 'help', [CompletionResultType]::ParameterValue, 'Print this message or the help of the given subcommand(s)')
            break
        }
        'mmchat;help;ask' {
            break
        }
        'mmchat;help;config' {
            [CompletionResult]::new('path', 'path', [CompletionResultType]::ParameterValue, 'Print the path of the config file')
            [CompletionResult]::new('check', 'check', [CompletionResultType]::ParameterValue, 'Check the config file and tell every problem in it')
            [CompletionResult]::new('show', 'show', [CompletionResultType]::ParameterValue, 'Print what is in force, each setting with its source, without secrets')
            [CompletionResult]::new('schema', 'schema', [CompletionResultType]::ParameterValue, 'Print the JSON schema of the config file')
            break
        }
        'mmchat;help;config;path' {
            break
        }
        'mmchat;help;config;check' {
            break
        }
        'mmchat;help;config;show' {
            break
        }
        'mmchat;help;config;schema' {
            break
        }
        'mmchat;help;mock' {
            break
        }
        'mmchat;help;demo' {
            break
        }
        'mmchat;help;completions' {
            break
        }
        'mmchat;help;help' {
            break
        }
    })

    $completions.Where{ $_.CompletionText -like "$wordToComplete*" } |
        Sort-Object -Property ListItemText
}
