"""The page of an explanation: what is in it, and what cannot leave it."""

import base64
import dataclasses
import hashlib
import html
import html.parser
import json
import re
import zlib

import numpy as np
import pytest

from tests import explained, tiny
from tokenpose_jax.explanation import constraints, page
from tokenpose_jax.models.published import PUBLISHED

TRICK = "</script><script>alert(1)</script><!--\"'&\u202e\x1b[2J"


@pytest.fixture(scope="module")
def made():
  """An explanation and its page."""
  explanation = explained.explanation(tiny.model())
  return explanation, page.render(explanation, "photo.jpg, person 1")


def parts(text: str) -> dict[str, str]:
  """The JSON block and the script."""
  found = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
  assert [kind for kind, _ in found] == [
    ' type="application/json" id="data"',
    "",
  ]
  return {"data": found[0][1], "script": found[1][1]}


def unpacked(value):
  """Numbers as the page reads them."""
  if isinstance(value, dict) and "data" in value:
    data = zlib.decompress(base64.b64decode(value["data"]))
    kind = "<" + value["kind"]
    return np.frombuffer(data, kind).reshape(value["shape"])
  if not isinstance(value, dict):
    return value
  return {name: unpacked(part) for name, part in value.items()}


def numbers(text: str):
  def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")

  data = json.loads(parts(text)["data"], parse_constant=refuse)
  return unpacked(data)


def check_maps(maps, wanted) -> None:
  """8 bits: right to half a step of each map."""
  seen = maps["low"] + maps["levels"].astype(float) * maps["step"]
  wanted = np.reshape(wanted, seen.shape)
  assert (np.abs(seen - wanted) <= 0.501 * maps["step"] + 1e-7).all()


def test_attention_layer_by_layer(made):
  explanation, text = made
  data = numbers(text)
  k = explanation.skeleton.num_keypoints
  heads = explanation.evidence.attention
  assert data["views"] == ["mean", "rollout", "1", "2"]
  wanted = np.stack(
    [heads.mean(1), explanation.evidence.rollout, heads[:, 0], heads[:, 1]], 1
  )
  attention = data["attention"]
  check_maps(attention["keypoints"], wanted[..., :k])
  check_maps(attention["patches"], wanted[..., k:])
  np.testing.assert_array_equal(attention["peaks"], wanted[..., k:].argmax(-1))
  np.testing.assert_allclose(
    attention["onImage"], wanted[..., k:].sum(-1), atol=1e-6
  )


def test_predictions_and_tokens(made):
  explanation, text = made
  data, found = numbers(text), explanation.evidence
  assert data["layers"] == list(explanation.layers)
  assert data["names"] == list(explanation.skeleton.keypoints)
  assert data["settled"] == explanation.settled.tolist()
  assert data["boxSide"] == explanation.box_side
  assert data["kinds"] == constraints.kinds(explanation.skeleton).tolist()
  check_maps(data["heatmaps"], found.heatmaps)
  np.testing.assert_array_equal(data["points"], found.points)
  np.testing.assert_array_equal(data["scores"], found.scores)
  for name in ("inner", "cosine"):
    np.testing.assert_allclose(
      data["similarity"][name],
      getattr(explanation.similarity, name),
      atol=1e-6,
    )


def test_covered_places(made):
  explanation, text = made
  data, probe = numbers(text)["places"], explanation.places
  k = explanation.skeleton.num_keypoints
  assert (data["side"], data["cover"], data["rows"]) == (11, "gray", 12)
  np.testing.assert_allclose(data["centers"], probe.centers)
  np.testing.assert_allclose(data["points"], probe.points, rtol=1e-6)
  np.testing.assert_allclose(data["scores"], probe.scores, rtol=1e-6)
  last = probe.attention[-1]
  check_maps(data["attention"]["keypoints"], last[..., :k])
  check_maps(data["attention"]["patches"], last[..., k:])


def test_a_covered_joint_turns_to_others(made):
  explanation, text = made
  rise = numbers(text)["joints"]["rise"]
  before = explanation.evidence.attention.mean(1)
  for covered, other in ((0, 3), (5, 5), (16, 2)):
    np.testing.assert_allclose(
      rise[:, covered, other],
      explanation.joints.attention[:, covered, covered, other]
      - before[:, covered, other],
      atol=1e-6,
    )


def test_nothing_leaves_the_page(made):
  text = made[1]
  policy = html.unescape(
    re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
  )
  digest = hashlib.sha256(parts(text)["script"].encode()).digest()
  assert policy.split("; ") == [
    "default-src 'none'",
    "img-src data:",
    "style-src 'unsafe-inline'",
    f"script-src 'sha256-{base64.b64encode(digest).decode()}'",
    "base-uri 'none'",
    "form-action 'none'",
  ]
  assert not re.search(r"https?:|@import|url\(", text)
  addresses = re.findall(r'(?:src|href)="([^"]{0,20})', text)
  assert addresses
  assert all(address.startswith("data:") for address in addresses)
  # Attributes that run code would need another policy.
  assert not re.search(r"<[^>]*\son[a-z]+=", text.split("<script")[0])


def test_every_name_that_the_script_asks_for_is_there(made):
  text = made[1]
  asked = re.findall(r'byId\("([a-z-]+)"\)', parts(text)["script"])
  asked += re.findall(r'chart\("([a-z]+)"', parts(text)["script"])
  drawn = {"figures", "occluder"}  # by the script itself
  there = re.findall(r'\sid="([a-z-]+)"', text)
  assert len(set(asked)) > 30
  assert set(asked) <= {*there, *drawn}
  assert len(there) == len(set(there))
  labels = re.findall(r'<label for="([a-z]+)"', text)
  assert set(labels) <= set(there)


def test_the_page_is_well_formed(made):
  open_tags = []
  single = {"meta", "link", "img", "input", "br"}

  class Reader(html.parser.HTMLParser):
    def handle_starttag(self, tag, attributes):
      if tag not in single:
        open_tags.append(tag)

    def handle_endtag(self, tag):
      assert open_tags.pop() == tag

  Reader().feed(made[1])
  assert open_tags == []


def test_names_of_strangers_are_harmless(made):
  explanation = made[0]
  names = (TRICK, *explanation.skeleton.keypoints[1:])
  skeleton = dataclasses.replace(explanation.skeleton, keypoints=names)
  text = page.render(dataclasses.replace(explanation, skeleton=skeleton), TRICK)
  assert "\u202e" not in text
  assert "\x1b" not in text
  assert "alert(1)</script>" not in text
  assert len(parts(text)) == 2
  assert numbers(text)["names"][0].startswith("</script><script>alert(1)")
  assert r"\u202e\x1b[2J" in html.unescape(re.search("<h1>(.*)</h1>", text)[1])


@pytest.mark.parametrize(
  ("missing", "words"),
  [
    (("places",), "places all over the picture"),
    (("joints",), "the joints"),
    (("places", "joints"), "anything"),
  ],
)
def test_without_a_probe_the_page_says_how_to_get_one(made, missing, words):
  explanation = dataclasses.replace(made[0], **dict.fromkeys(missing))
  text = page.render(explanation, "photo")
  assert f"made without covering {words}. <code>" in text
  assert ('id="covering"' in text) == ("places" not in missing)
  assert ('id="rise"' in text) == ("joints" not in missing)
  assert [numbers(text)[name] for name in missing] == [None] * len(missing)


def test_without_a_rollout(made):
  found = made[0].evidence._replace(rollout=None)
  text = page.render(dataclasses.replace(made[0], evidence=found), "photo")
  assert numbers(text)["views"] == ["mean", "1", "2"]


@pytest.mark.parametrize("keypoints", [1, 2, 40])
def test_any_number_of_keypoints(keypoints):
  model = dataclasses.replace(tiny.model(), num_keypoints=keypoints)
  text = page.render(explained.explanation(model), "photo")
  assert len(numbers(text)["names"]) == keypoints


def test_maps_without_a_range(made):
  """A network that does nothing has maps of one value."""
  found = made[0].evidence
  found = found._replace(heatmaps=np.full_like(found.heatmaps, 0.25))
  text = page.render(dataclasses.replace(made[0], evidence=found), "photo")
  maps = numbers(text)["heatmaps"]
  assert (maps["levels"] == 0).all()
  assert (maps["low"] == 0.25).all()


def test_the_largest_published_network_stays_small():
  """Noise is what can be deflated least."""
  largest = PUBLISHED["tokenpose_l_d24_384x288"]
  text = page.render(explained.explanation(largest), "photo")
  assert len(text.encode()) < 8e6
