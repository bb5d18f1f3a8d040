from tag2mask.cli.tag_errors import tag_error_lines
from tag2mask.evaluation.tag_errors import SuspiciousImage, TagErrors


def test_suspicious_images_are_listed_with_their_reasons():
    swapped = SuspiciousImage("lane/a", 0.98, (("cat", 0.02),), (("dog", 0.91),))
    missing = SuspiciousImage("b", 0.8, (), (("dog", 0.8),))
    clean = SuspiciousImage("c", 0.1, (), ())
    errors = TagErrors((swapped, missing, clean), 0.876, ("d.jpg: torn",))
    skipped, head, first, second = tag_error_lines(errors)
    assert skipped == "skipped: d.jpg: torn"
    assert head.startswith("2 of 3 images")
    assert head.endswith("(mean average precision 0.88)")
    assert first == (
        "  0.98  lane/a: probably not cat (probability 0.02), probably shows dog (probability 0.91)"
    )
    assert second == "  0.80  b: probably shows dog (probability 0.80)"


def test_a_long_list_ends_with_the_number_of_others():
    images = tuple(SuspiciousImage(str(i), 0.9, (("cat", 0.1),), ()) for i in range(25))
    assert list(tag_error_lines(TagErrors(images, 0.5, ())))[-1].startswith("  and 5 more")
