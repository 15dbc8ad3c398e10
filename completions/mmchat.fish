complete --keep-order --exclusive --command mmchat --arguments "(COMPLETE=fish mmchat -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
