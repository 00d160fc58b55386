"""Scores of masks, boxes and time spans. numpy only; training and evaluation share them.

`davis` (J and F of a frame, mean, recall, decay), `davis_tracks` (sequences, both tracks of DAVIS),
`expressions` and `mevis` (MeViS, Ref-YouTube-VOS, Ref-DAVIS17), `revos`, `refavs`, `spans` (t-IoU), `boxes`.
All values lie in [0, 1]; each module names the official code whose numbers it equals.
"""
