"""Drawn people with exact keypoints: data for the demo and for tests."""
