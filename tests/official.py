"""Small copies of the official layouts: real annotation formats, real video files of a few blocks that move."""
import json

import numpy as np
from prism_nb.data.video import write_video


def film(path, seed, frames=20):
    """A block that crosses a textured picture of 64×48."""
    draw = np.random.default_rng(seed)
    video = np.repeat(draw.integers(0, 200, (1, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2), frames, 0)
    for t, frame in enumerate(video):
        frame[16:28, 2 * t : 2 * t + 12] = draw.integers(200, 256, 3)
    write_video(path, video)


def written(root, names):
    for i, name in enumerate(names):
        film(root / name, [len(str(root)), i])


def text(path, lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode())


def ucf101(root, end="\r\n"):
    """UCF-101/ and ucfTrainTestlist/; two classes of miniUCF and one that is not in it."""
    classes = ["ApplyEyeMakeup", "BalanceBeam", "YoYo"]
    clips = [f"{c}/v_{c}_g{g:02}_c01.avi" for c in classes for g in (1, 2, 8, 9, 10)]
    written(root / "UCF-101", clips)
    lists = root / "ucfTrainTestlist"
    text(lists / "classInd.txt", [f"{i} {c}" for i, c in enumerate(classes, 1)], end)
    for split in (1, 2, 3):
        text(lists / f"testlist{split:02}.txt", [n for n in clips if "_g0" in n and n[-11:-8] in ("g01", "g02")], end)
        text(lists / f"trainlist{split:02}.txt", [f"{n} {classes.index(n.split('/')[0]) + 1}" for n in clips if n[-11:-8] not in ("g01", "g02")], end)


def hmdb51(root):
    """A folder a class and testTrainMulti_7030_splits/; 1 trains, 2 tests, 0 does neither."""
    for c in ("brush_hair", "wave"):
        clips = [f"{source} (1)!_{c}_u_nm_np1_ba_goo_{i}.avi" for source in ("April_09", "Café", "x+y@z") for i in (0, 1)]
        written(root / c, clips)
        for split in (1, 2, 3):
            text(root / "testTrainMulti_7030_splits" / f"{c}_test_split{split}.txt", [f"{n} {side} " for n, side in zip(clips, (1, 1, 1, 0, 2, 2))])


def kinetics400(root):
    """train/, val/ and their CSV files; of the listed clips one is missing, one too short and one broken."""
    classes = {"abseiling": "ab-_cdefgh{}", "massaging person's head": "mn_opqr-st{}"}
    for side, numbers in (("train", range(5)), ("val", range(5, 7))):
        rows = [(label, name.format(i), 7 * i, 7 * i + 10) for label, name in classes.items() for i in numbers]
        text(root / f"{side}.csv", ["label,youtube_id,time_start,time_end,split,is_cc"] + [f'"{label}",{clip},{a},{b},{side},0' for label, clip, a, b in rows])
        written(root / side, [f"{clip}_{a:06}_{b:06}.mp4" for _, clip, a, b in rows])
    first, second, *_, third = sorted((root / "train").iterdir())
    first.unlink()
    film(second, 0, frames=5)
    third.write_bytes(third.read_bytes()[:500])


def ssv2(root):
    """20bn-something-something-v2/ and the JSON files, as the download names them."""
    templates = ["Putting [something] on a surface", "Pretending to be tearing [something that is not tearable]"]
    plain = [t.replace("[", "").replace("]", "") for t in templates]
    labels = root / "labels"
    text(labels / "something-something-v2-labels.json", [json.dumps({label: str(i) for i, label in enumerate(plain)})])
    for side, ids in (("train", range(6)), ("validation", range(6, 10)), ("test", range(10, 12))):
        entries = [{"id": str(i)} if side == "test" else {"id": str(i), "label": "putting a cup on a surface", "template": templates[i % 2], "placeholders": ["a cup"]} for i in ids]
        text(labels / f"something-something-v2-{side}.json", [json.dumps(entries)])
    written(root / "20bn-something-something-v2", [f"{i}.webm" for i in range(12)])
