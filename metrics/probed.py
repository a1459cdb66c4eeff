"""What is measured of a ViT's features while it trains (`engine.config.FeatureProbes`), beside what its task scores."""

import math

from metrics.metric import Metric

KNN, LINEAR = Metric(name="probe_knn"), Metric(name="probe_linear")
# up to the images that are probed, or the width of the features
RANK = Metric(name="probe_rank", unit="", maximum=math.inf)
SPREAD = Metric(name="probe_spread", unit="", maximum=math.inf)
UNREADABLE = Metric(name="probe_unreadable", unit="images", higher_is_better=False, maximum=math.inf, decimals=0)
PROBED = (KNN, LINEAR, RANK, SPREAD, UNREADABLE)
