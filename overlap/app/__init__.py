"""Behind the command line: help, running a command through Hydra, and one-line answers to mistakes.

Where to look: `launch` runs a command and keeps its failures, `arguments` prepares what was typed, `launchers` brings
back what jobs in other processes came to, `explain` turns Hydra's complaints into one line that says what was probably
meant, `usage` writes the help texts, `naming` names the folders of a multirun, `config` holds the schemas of the
commands, `keep` restores the record of a run that another one was refused.
"""
