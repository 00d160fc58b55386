"""The procedural audio-visual world: exact ground truth, any resolution, real mp4 with sound.

`world` names the constants, `scene` draws scenes from seeds, `render` and `sound` show them, `texts` says
what is asked and answered, `clip` writes them as mp4 with `SceneTruth`, `evaluate` scores a `Result`.
"""
