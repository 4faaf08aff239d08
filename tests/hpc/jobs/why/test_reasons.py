"""Every reason word of Slurm has a sentence, and a next step that a person can take."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.why.reasons import REASONS, slurm_reason

# job_reason_string() of Slurm 22.05.8, in the order of enum job_state_reason.
WORDS = (Path(__file__).parent / "reason_words.txt").read_text().split()
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/slurm-wlm/libslurmfull.so")
# JOB REASON CODES of squeue(1) 22.05, as they stand there.
MANUAL = (Path(__file__).parent / "squeue_manual_words.txt").read_text().split()
LATER = ("Constraints", "Deadline", "None")  # of newer versions' job_reason_codes.html
PERSON = r"[Aa]sk |[Ww]ait|cluster\.\w+|lockgate \w+|scontrol |sinfo|squeue|See |Submit|Give "


@pytest.mark.parametrize("word", [*WORDS, *(one.replace("*", "Cpu") for one in MANUAL), *LATER])
def test_every_word_has_a_sentence_that_names_what_to_do(word: str) -> None:
    reason = slurm_reason(word)
    assert "not in this version's table" not in reason.meaning
    assert reason.meaning[0].isupper() and reason.meaning.endswith(".")
    assert re.search(PERSON, reason.advice), reason.advice
    assert "  " not in reason.meaning + reason.advice


@pytest.mark.skipif(not LIBRARY.exists(), reason="Slurm's library is not installed")
def test_the_words_are_those_of_the_slurm_that_is_installed() -> None:
    word_of = ctypes.CDLL(str(LIBRARY)).slurm_job_reason_string
    word_of.restype = ctypes.c_char_p
    words = [word_of(number).decode() for number in range(250)]
    # A number without a word comes back as itself. PartitionDown stands for two.
    assert list(dict.fromkeys(word for word in words if not word.isdecimal())) == WORDS


def test_only_keys_of_the_cluster_that_exist_are_named() -> None:
    known = set(ClusterConfig.__annotations__)
    sentences = [slurm_reason(word).advice for word in WORDS] + [
        reason.advice for reason in REASONS.values()
    ]
    named = {key for text in sentences for key in re.findall(r"cluster\.([a-z_]+)", text)}
    assert len(named) > 8
    assert named <= known


@pytest.mark.parametrize(
    ("word", "meaning", "never"),
    [
        ("QOSMaxGRESPerUser", "Its QOS allows no more GPUs or other GRES at one time for one user.",
         False),
        ("QOSMaxMemoryPerNode", "It asks for more memory than its QOS gives to one node.", True),
        ("QOSMinCpuNotSatisfied", "It asks for less CPUs than its QOS wants of a job.", True),
        ("AssocGrpCPUMinutesLimit", "The jobs of your account have used up their minutes of CPUs.",
         True),
        ("AssocGrpCPURunMinutesLimit", "Your account allows no more minutes of CPUs at one time.",
         False),
        ("MaxJobsPerAccount", "Its QOS allows no more running jobs at one time for one account.",
         False),
        ("Priority", "Jobs of a higher priority are before it in the queue.", False),
        ("PartitionTimeLimit", "Its time limit is longer than its partition allows.", True),
    ],
)  # fmt: skip
def test_sentences(word: str, meaning: str, never: bool) -> None:
    assert (slurm_reason(word).meaning, slurm_reason(word).never) == (meaning, never)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ReqNodeNotAvail, UnavailableNodes:n1", "ReqNodeNotAvail"),
        ("(Resources)", "Resources"),
        ("deadline", "DeadLine"),
        ("", "None"),
    ],
)
def test_the_word_is_found_in_slurms_text(text: str, word: str) -> None:
    assert slurm_reason(text).word == word


@pytest.mark.parametrize("word", ["Whim", "QOSMaxWhimPerUser", "AssocGrp", "MaxPerAccount"])
def test_an_unknown_word_is_passed_on(word: str) -> None:
    reason = slurm_reason(word)
    assert "scontrol show job" in reason.advice
    assert not reason.never
