import re

import pytest

from tag2mask.report.glossary import Glossary
from tag2mask.report.terms import WORDS


def test_a_link_leads_to_the_explanation_and_is_remembered():
    glossary = Glossary()
    assert glossary.link("mask", "<masks>") == '<a class="word" href="#word-mask">&lt;masks&gt;</a>'
    glossary.link("background")
    glossary.link("mask")
    assert [entry.key for entry in glossary.entries()] == ["background", "mask"]
    assert glossary.entries()[1].explanation == WORDS["mask"].explanation


def test_a_term_without_explanation_is_an_error():
    with pytest.raises(KeyError):
        Glossary().link("gone")


def test_every_word_is_explained_in_sentences():
    for word in WORDS.values():
        assert word.label
        assert re.fullmatch(r"[A-Z].*[.]", word.explanation), word


def test_a_sentence_links_each_of_its_terms_once() -> None:
    glossary = Glossary()
    linked = glossary.link_phrases("<b> true masks; mIoU of true masks, classes from tags")
    assert linked == (
        '&lt;b&gt; <a class="word" href="#word-true_mask">true masks</a>; '
        '<a class="word" href="#word-miou">mIoU</a> of true masks, '
        '<a class="word" href="#word-class_source">classes from tags</a>'
    )
    assert {entry.key for entry in glossary.entries()} == {"true_mask", "miou", "class_source"}
    assert glossary.link_phrases("roadmaps") == "roadmaps"
