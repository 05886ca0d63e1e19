"""Every field of every config, once, with its unit and meaning.

A variant is a short delta on this file. Fields are locked: a misspelt
`--config.FIELD` is an error. Sizes are (height, width) in pixels. Defaults that
decide figures are those of the original's COCO configs (reference 2, 3,
4.5, 5).
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """TokenPose-S-v1's network on COCO; the other files change it."""
  config = ml_collections.ConfigDict()

  # Seeds the initial weights, the order of people and every augmentation.
  config.seed = 0

  # The network, and nothing else: keyword arguments of models.TokenPose, where
  # they are described.
  model = config.model = ml_collections.ConfigDict()
  model.input_hw = (256, 192)
  model.heatmap_hw = (64, 48)
  model.num_keypoints = 17  # follows data.skeleton; never set by hand
  model.backbone = "stem"  # none | stem | hrnet_w32 | hrnet_w48
  model.stem_channels = 64
  model.patch_hw = (4, 3)  # on the backbone's map
  model.dim = 192
  model.depth = 12  # blocks in a stack
  model.stacks = 1
  model.heads = 8
  model.attention_scale = "head"  # head: (dim / heads)^-0.5 | width: dim^-0.5
  model.mlp_ratio = 3
  model.position = "sine-full"  # none | learnable | sine | sine-full
  model.head_dim = 384  # 0: one linear layer
  model.dtype = "float32"  # compute type: float32 | bfloat16
  # Not of the network itself: a file of backbone weights (.pth, .safetensors;
  # HRNet on ImageNet, official or timm) that a training starts from.
  model.init_backbone = ""

  data = config.data = ml_collections.ConfigDict()
  data.name = "coco"  # coco: any COCO folder | mpii | synthetic: drawn people
  data.dir = "data/coco"  # the folder; synthetic people are written here
  data.prepared_dir = ""  # of prepared data; "": TFDS's own directory
  data.train_split = "train2017"
  data.eval_split = "val2017"
  # coco_17 | mpii_16 | a JSON file | annotations: as the annotation file says
  data.skeleton = "coco_17"
  data.padding = 1.25  # crop over box (reference 4.1)
  # Train from each person's surroundings, stored once as pixels: several times
  # faster, for about 0.35 MB of disk a person of COCO (docs/data.md).
  data.person_crops = False
  # Stored pixels per pixel of the unaugmented crop, at most: 2 changes pixels
  # less than another JPEG decoder would.
  data.crop_density = 2.0
  data.synthetic_seed = 0
  data.synthetic_train_people = 5000
  data.synthetic_test_people = 240
  data.workers = 0  # threads that read and crop; 0: as many as tf.data likes

  # reference 4.5. Probabilities, and the spread of each draw.
  augment = config.augment = ml_collections.ConfigDict()
  augment.flip_probability = 0.5
  augment.rotation_probability = 0.6
  augment.rotation_degrees = 45.0  # deviation; cut at twice this
  augment.scale = 0.35  # deviation, and where it is cut
  augment.half_body_probability = 0.3
  augment.half_body_min_keypoints = 8  # only with more labelled ones
  # The original draws a *normal* number < 0.5 here: 0.6915, where a uniform
  # 0.5 was surely meant (reference 6). Published weights were trained so.
  augment.half_body_upper_probability = 0.6914624612740131

  # Training targets and loss.
  config.sigma = 2.0  # of the Gaussian targets, heatmap pixels
  # Rows of crop and heatmap correspond as in UDP (codec.py), in training and
  # evaluation; False: as the original has it.
  config.udp = False

  optim = config.optim = ml_collections.ConfigDict()
  optim.learning_rate = 1e-3
  optim.schedule = "step"  # step: x0.1 at each of drop_epochs | cosine: to 0
  optim.drop_epochs = (200, 260)
  optim.warmup_epochs = 0.0  # linear, from 0
  optim.b1 = 0.9
  optim.b2 = 0.999
  optim.eps = 1e-8  # added after the square root (reference 3)

  train = config.train = ml_collections.ConfigDict()
  train.init = "original"  # original: reference 2.7 | fan_in: short trainings
  # Weights to start from: a work directory (its best checkpoint), or a file
  # of TokenPose weights (.pth, .safetensors). Keypoint tokens go by name.
  train.init_from = ""
  train.batch_size = 128  # people in a step, over all devices
  train.epochs = 300
  train.steps = 0  # > 0: stop there; the schedule still follows epochs
  train.log_every = 100  # steps
  train.pictures_every = 2000  # steps; 0: never
  train.eval_every_epochs = 10  # and at the end; 0: only at the end

  checkpoint = config.checkpoint = ml_collections.ConfigDict()
  checkpoint.every_steps = 1000  # and at the end
  checkpoint.keep = 2  # latest; the best one is kept beside them
  # Resume although the data or the network differ from the checkpoint's.
  checkpoint.accept_mismatch = False

  evaluation = config.eval = ml_collections.ConfigDict()
  evaluation.boxes = "gt"  # gt | a detector-box file (COCO results JSON)
  evaluation.box_score = 0.0  # detector boxes below are not used
  evaluation.keypoint_score = 0.2  # counts in rescoring above (reference 5.4)
  evaluation.nms_oks = 0.9  # OKS-NMS; 1: none
  evaluation.nms_soft = False  # demote, keep 20 an image (reference 5.4)
  evaluation.flip = True  # average with the mirrored image
  evaluation.flip_shift = False  # its heatmaps, moved by a pixel, as in HRNet
  evaluation.decoder = "dark"  # dark | udp | quarter | argmax (reference 5.1)
  evaluation.batch_size = 32
  evaluation.max_images = 0  # > 0: only the first ones
  evaluation.checkpoint = "best"  # with --mode=evaluate: best | latest | STEP
  evaluation.pictures = 24  # people on the contact sheet
  evaluation.best_and_worst = 12  # predictions drawn in the report, of each
  evaluation.bootstrap = 1000  # replicates for intervals; 0: none

  return config
