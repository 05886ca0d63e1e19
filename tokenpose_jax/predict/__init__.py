"""Photos in, keypoints out: networks ready for use."""
