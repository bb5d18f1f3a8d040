import torch

from tag2mask.models.base import Features, QueryKey


def block() -> QueryKey:
    return QueryKey(torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4))


def test_logits_are_products_of_queries_and_keys() -> None:
    one = block()
    for head in range(3):
        for row in range(5):
            for column in range(5):
                expected = one.query[1, head, row] @ one.key[1, head, column]
                torch.testing.assert_close(one.logits()[1, head, row, column], expected)


def test_mixed_logits_are_the_weighted_sum_over_heads() -> None:
    one, weight = block(), torch.randn(3)
    expected = (one.logits() * weight[:, None, None]).sum(dim=1)
    torch.testing.assert_close(one.mixed(weight), expected, atol=1e-5, rtol=1e-5)


def test_first_images_keep_their_logits() -> None:
    one = block()
    assert one.heads == one.first(1).heads == 3
    torch.testing.assert_close(one.first(1).logits(), one.logits()[:1])


def test_features_without_attention_have_no_logits() -> None:
    assert Features((), ()).logits() == []
    assert len(Features((), (block(), block())).logits()) == 2
