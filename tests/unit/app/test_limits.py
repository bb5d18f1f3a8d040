from tag2mask.app.limits import Limits


def test_limits_are_in_the_units_of_their_names():
    limits = Limits(upload_mib=2, body_mib=3, image_mpx=4)
    assert limits.upload_bytes == 2 * 2**20
    assert limits.body_bytes == 3 * 2**20
    assert limits.image_px == 4_000_000


def test_the_mask_of_the_largest_image_fits_into_a_request():
    worst = ",".join(["255,100"] * 100_000)  # 100,000 runs: more than real masks have
    assert len(worst) < Limits().body_bytes
