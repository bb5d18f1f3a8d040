"""Refine class activation maps of any other program with PAR and with a dense CRF.

Run: python examples/refine_cams.py IMAGE CAMS.npy OUT
CAMS.npy is a (K, h, w) array: one raw map for each of the K classes that the image shows.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from tag2mask.functional import normalize_cam, probs_with_background, upsample
from tag2mask.io.images import read_image
from tag2mask.io.masks import save_mask
from tag2mask.refiners import PAR, DenseCRF

out = Path(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
image = torch.from_numpy(read_image(Path(sys.argv[1]))).permute(2, 0, 1)[None]  # (1, 3, H, W)
cam = torch.from_numpy(np.load(sys.argv[2])).float()[None]  # (1, K, h, w)

cam = normalize_cam(upsample(cam.relu(), image.shape[-2:]))
probs = probs_with_background(cam, background=0.45)  # (1, 1 + K, H, W), sums to 1

refiners = {"par": PAR(PAR.Config(name="par")), "crf": DenseCRF(DenseCRF.Config(name="dense_crf"))}
results = {"raw": probs} | {name: refine(image, probs) for name, refine in refiners.items()}
for name, result in results.items():
    mask = result.argmax(dim=1)[0].numpy().astype(np.uint8)  # 0 is background, 1..K the classes
    save_mask(mask, out / f"{name}.png")
    print(f"{name}: {(mask > 0).mean():.1%} of the pixels are foreground")
