from tag2mask.report.terms import (
    LEARNING_RATES,
    LOSSES,
    MONITORS,
    PHRASES,
    SETTINGS,
    WORDS,
    Term,
    term,
)


def test_every_name_in_a_log_is_explained() -> None:
    for terms in (LOSSES, MONITORS, LEARNING_RATES):
        assert all(one.explanation for one in terms.values())
    assert set(SETTINGS.values()) <= WORDS.keys()
    assert set(PHRASES.values()) <= WORDS.keys()


def test_paper_terms_stand_in_brackets_after_plain_words() -> None:
    assert term("ciml", LOSSES).label.endswith("(CIML)")
    assert term("empty_cams", MONITORS).label == "tags with an empty CAM"


def test_unlisted_names_are_written_with_spaces() -> None:
    assert term("my_own_loss", LOSSES) == Term("my own loss")
