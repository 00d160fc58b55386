"""Running the pipeline over a data set, and scoring predictions, anyone's, as the official evaluators do.

`plan` says what a run is, `predictor` answers one expression, `runner` goes through a split and can be
killed and started again, `ray_runner` does the same on many workers, `scoring` scores a folder of
predictions, `report` and `html` show the outcome.
"""
