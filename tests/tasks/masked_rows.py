"""Rows of LM-BFF's tasks in the format of their files, with the expected tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """The expected tokens of a row, separated by spaces, and its class id. Ġ is a space."""

    tokens: str
    label: int


@dataclass(frozen=True)
class Task:
    """The expected properties of a task.

    ``real`` names a folder of LM-BFF's data and the row numbers of ``asked`` in its train file.
    If there is none, ``file`` is the text of a file in the official format with these rows.
    """

    words: str
    asked: tuple[Asked, ...]
    metric: str = "accuracy"
    real: tuple[str, tuple[int, ...]] = ("", ())
    file: str = ""
    extension: str = ".tsv"


PAIR_WORDS = "ĠNo ĠYes ĠMaybe"

TASKS = {
    "sst2_kshot": Task(
        words="Ġterrible Ġgreat",
        real=("SST-2", (3, 23)),
        asked=(
            # GLUE's rows end with a space, which the published prompts keep.
            Asked("<s> hip Ġ ĠIt Ġwas <mask> . </s>", 1),
            Asked("<s> hard Ġto Ġcare Ġ ĠIt Ġwas <mask> . </s>", 0),
        ),
    ),
    "sst5_kshot": Task(
        words="Ġterrible Ġbad Ġokay Ġgood Ġgreat",
        real=("sst-5", (72, 2)),
        asked=(
            Asked("<s> extremely Ġbad Ġ. ĠIt Ġwas <mask> . </s>", 0),
            Asked("<s> nice Ġpiece Ġof Ġwork Ġ. ĠIt Ġwas <mask> . </s>", 3),
        ),
    ),
    "trec_kshot": Task(
        words="ĠDescription ĠEntity ĠExpression ĠHuman ĠLocation ĠNumber",
        real=("trec", (80, 38)),
        asked=(
            Asked("<s> <mask> : ĠWhat Ġis ĠLMDS Ġ? </s>", 2),
            Asked("<s> <mask> : ĠWhy Ġdoes Ġit Ġsnow Ġ? </s>", 0),
        ),
    ),
    "snli_kshot": Task(
        words=PAIR_WORDS,
        real=("SNLI", (42, 11)),
        asked=(
            Asked(
                "<s> An Ġalmost Ġempty Ġsubway Ġterminal ? <mask> , Ġa Ġgreat Ġlooking Ġbuilding . "
                "</s>",
                2,
            ),
            Asked(
                "<s> A Ġchef Ġis Ġpreparing Ġpizza ? <mask> , Ġthere Ġis Ġa Ġchef Ġpreparing Ġa "
                "Ġpizza . </s>",
                1,
            ),
        ),
    ),
    "mnli_kshot": Task(
        words=PAIR_WORDS,
        real=("MNLI", (8, 26)),
        asked=(
            Asked("<s> Very Ġgood , ĠIvan ? <mask> , Ġexcellent , ĠIvan . </s>", 1),
            # The template drops the last character, here the u of "you".
            Asked(
                "<s> uh - huh Ġbut Ġdon 't Ġdon 't Ġyo ? <mask> , Ġyou Ġdo . </s>",
                0,
            ),
        ),
    ),
    "rte_kshot": Task(
        words="ĠYes ĠNo",
        real=("RTE", (21, 8)),
        asked=(
            Asked(
                "<s> The ĠDaily ĠMail Ġhas Ġconfirmed Ġit Ġhas Ġpulled Ġout Ġof Ġthe Ġbidding Ġfor "
                "Ġrival Ġnewspaper Ġthe ĠDaily ĠTelegraph ? <mask> , Ġdaily Ġtelegraph Ġis Ġsold . "
                "</s>",
                1,
            ),
            Asked(
                "<s> The Ġresult Ġin ĠDenmark Ġshows Ġthat Ġpeople Ġare Ġfundamentally Ġopposed "
                "Ġto Ġjoining Ġthe Ġeuro ? <mask> , Ġthe Ġintroduction Ġof Ġthe Ġeuro Ġhas Ġbeen "
                "Ġopposed . </s>",
                0,
            ),
        ),
    ),
    "mrpc_kshot": Task(
        words="ĠNo ĠYes",
        metric="f1",
        file="Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        "1\t702876\t702977\tAmrozi accused his brother .\tReferring to him , Amrozi spoke .\n"
        "0\t2108705\t2108831\tShares rose 5 % .\tThe stock fell .\n",
        asked=(
            Asked(
                "<s> Amrozi Ġaccused Ġhis Ġbrother Ġ. <mask> , Ġreferring Ġto Ġhim Ġ, ĠAmrozi "
                "Ġspoke Ġ. </s>",
                1,
            ),
            Asked("<s> Shares Ġrose Ġ5 Ġ% Ġ. <mask> , Ġthe Ġstock Ġfell Ġ. </s>", 0),
        ),
    ),
    "qqp_kshot": Task(
        words="ĠNo ĠYes",
        metric="f1",
        file="id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "402555\t536040\t536041\tHow do I start?\tHow can I start?\t1\n"
        '360472\t364011\t490273\tWhat is "it"?\tWho is he?\t0\n',
        asked=(
            Asked("<s> How Ġdo ĠI Ġstart ? <mask> , Ġhow Ġcan ĠI Ġstart ? </s>", 1),
            Asked('<s> What Ġis Ġ" it "? <mask> , Ġwho Ġis Ġhe ? </s>', 0),
        ),
    ),
    "qnli_kshot": Task(
        words="ĠYes ĠNo",
        file="index\tquestion\tsentence\tlabel\n"
        "0\tWhen did it begin?\tIt began later.\tnot_entailment\n"
        "1\tWho ruled?\tThe King ruled.\tentailment\n",
        asked=(
            # The template drops the question mark of the question and adds its own.
            Asked("<s> When Ġdid Ġit Ġbegin ? <mask> , Ġit Ġbegan Ġlater . </s>", 1),
            Asked("<s> Who Ġruled ? <mask> , Ġthe ĠKing Ġruled . </s>", 0),
        ),
    ),
    "cola_kshot": Task(
        words="Ġincorrect Ġcorrect",
        metric="matthews",
        file="gj04\t1\t\tThe boat sank.\ngj04\t0\t*\tThey drank the pub.\n",
        asked=(
            Asked("<s> The Ġboat Ġsank . ĠThis Ġis <mask> . </s>", 1),
            Asked("<s> They Ġdrank Ġthe Ġpub . ĠThis Ġis <mask> . </s>", 0),
        ),
    ),
    "mr_kshot": Task(
        words="Ġterrible Ġgreat",
        extension=".csv",
        file='1,"gripping , and funny ."\n0,stale and dull .\n',
        asked=(
            Asked("<s> gripping Ġ, Ġand Ġfunny Ġ. ĠIt Ġwas <mask> . </s>", 1),
            Asked("<s> stale Ġand Ġdull Ġ. ĠIt Ġwas <mask> . </s>", 0),
        ),
    ),
    "cr_kshot": Task(
        words="Ġterrible Ġgreat",
        extension=".csv",
        file='1,"it is a ""must"" ."\n0,it broke .\n',
        asked=(
            Asked('<s> it Ġis Ġa Ġ" must " Ġ. ĠIt Ġwas <mask> . </s>', 1),
            Asked("<s> it Ġbroke Ġ. ĠIt Ġwas <mask> . </s>", 0),
        ),
    ),
    "mpqa_kshot": Task(
        words="Ġterrible Ġgreat",
        extension=".csv",
        file="1,hope for peace\n0,a threat\n",
        asked=(
            Asked("<s> hope Ġfor Ġpeace ĠIt Ġwas <mask> . </s>", 1),
            Asked("<s> a Ġthreat ĠIt Ġwas <mask> . </s>", 0),
        ),
    ),
    "subj_kshot": Task(
        words="Ġsubjective Ġobjective",
        extension=".csv",
        file='0,"smart , alert film ."\n1,he meets her in spain .\n',
        asked=(
            Asked("<s> smart Ġ, Ġalert Ġfilm Ġ. ĠThis Ġis <mask> . </s>", 0),
            Asked("<s> he Ġmeets Ġher Ġin Ġspain Ġ. ĠThis Ġis <mask> . </s>", 1),
        ),
    ),
}
