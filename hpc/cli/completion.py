"""`lockgate completion bash|zsh`: a script that completes verbs, and names of runs and sweeps.

The script holds the verbs and the runs folder of the site as they are when it is printed: a shell
completes from the folder's own listing, and starts no Python for it. A run's name is data: it is
never evaluated by the shell, and one with letters that no run's name has is not offered.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

RUN_VERBS = (
    "show",
    "compare",
    "logs",
    "report",
    "why",
    "cancel",
    "resume",
    "pin",
    "export",
    "mlflow",
)
"""Verbs that take the name of a run; `release` takes run=RUN."""

EPILOG = """\
in bash:  lockgate completion bash > ~/.local/share/bash-completion/completions/lockgate
in zsh:   lockgate completion zsh > DIR/_lockgate, DIR being one of $fpath
Print it again when the site's folder moves.
"""

BASH = """\
# Completion of lockgate in bash. Made by: lockgate completion bash
_lockgate_runs() {
    local path name runs=@RUNS@
    for path in "$runs/$1"*/spec.yaml; do
        name=${path%/spec.yaml}
        name=${name##*/}
        [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ && -e $path ]] && COMPREPLY+=("$name")
    done
}
_lockgate_sweeps() {
    local path name runs=@RUNS@
    for path in "$runs/sweeps/$1"*/ledger.jsonl; do
        name=${path%/ledger.jsonl}
        name=${name##*/}
        [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ && -e $path ]] && COMPREPLY+=("$name")
    done
}
_lockgate() {
    local word=${COMP_WORDS[COMP_CWORD]} verb= place
    local -i index
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            --project) index+=1 ;;
            -*) ;;
            *) verb=${COMP_WORDS[index]}; break ;;
        esac
    done
    if [[ -z $verb ]]; then
        COMPREPLY=($(compgen -W '@VERBS@' -- "$word"))
        return
    fi
    if [[ $verb == ls && ${COMP_WORDS[COMP_CWORD - 1]} == --sweep ]]; then
        _lockgate_sweeps "$word"
        return
    fi
    # bash splits run=NAME at the sign.
    place=${COMP_WORDS[COMP_CWORD - 1]}
    if [[ $word == "=" ]]; then
        place==
        word=
    fi
    if [[ $place == "=" ]]; then
        [[ ${COMP_LINE:0:COMP_POINT} =~ [[:space:]]run=[^[:space:]]*$ ]] && _lockgate_runs "$word"
        return
    fi
    case " @RUN_VERBS@ " in
        *" $verb "*) _lockgate_runs "$word" ;;
    esac
}
complete -F _lockgate lockgate
"""

ZSH = """\
#compdef lockgate
# Completion of lockgate in zsh. Made by: lockgate completion zsh
_lockgate_runs() {
    local runs=@RUNS@
    local -a names
    names=($runs/*/spec.yaml(N:h:t))
    names=(${(M)names:#[A-Za-z0-9_][A-Za-z0-9_.-]#})
    compadd -a names
}
_lockgate_sweeps() {
    local runs=@RUNS@
    local -a names
    names=($runs/sweeps/*/ledger.jsonl(N:h:t))
    names=(${(M)names:#[A-Za-z0-9_][A-Za-z0-9_.-]#})
    compadd -a names
}
_lockgate() {
    setopt local_options extended_glob
    local verb= index
    for ((index = 2; index < CURRENT; index++)); do
        case $words[index] in
            --project) ((index++)) ;;
            -*) ;;
            *) verb=$words[index]; break ;;
        esac
    done
    if [[ -z $verb ]]; then
        local -a verbs
        verbs=(@VERBS@)
        compadd -a verbs
    elif [[ $verb == ls && $words[CURRENT - 1] == --sweep ]]; then
        _lockgate_sweeps
    elif [[ $PREFIX == run=* ]]; then
        compset -P 'run='
        _lockgate_runs
    elif [[ " @RUN_VERBS@ " == *" $verb "* ]]; then
        _lockgate_runs
    fi
}
if [[ $funcstack[1] == _lockgate ]]; then
    _lockgate "$@"
else
    compdef _lockgate lockgate
fi
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH}


def main(argv: Sequence[str]) -> int:
    """Run `lockgate completion ARGV`."""
    parser = argparse.ArgumentParser(
        prog="lockgate completion",
        description="Print a script that completes verbs and the names of runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=sorted(SCRIPTS))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in site=box")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import runs_folder

    print(completion_script(options.shell, runs_folder(options.overrides)), end="")
    return 0


def completion_script(shell: str, runs: Path) -> str:
    """The script for `shell`, which offers the runs of the folder `runs`."""
    from hpc.cli.main import VERBS

    script = SCRIPTS[shell].replace("@VERBS@", " ".join(VERBS))
    return script.replace("@RUN_VERBS@", " ".join(RUN_VERBS)).replace(
        "@RUNS@", shlex.quote(str(runs))
    )
