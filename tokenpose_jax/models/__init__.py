"""Networks: one TokenPose, its backbones, and the configs that name them."""
