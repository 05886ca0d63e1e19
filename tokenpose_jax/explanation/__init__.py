"""What keypoint tokens look at and how they agree on a pose.

`person.explain` is the way in; `tokenpose explain` the command.
"""
