"""Confidence intervals for the difference between two networks, or between two samples of numbers."""

import numpy as np
import tensorflow as tf


def paired_bootstrap(statistic, a, b, clusters, *, resamples=2000, seed=0):
    """Return the differences between the metrics of two networks on the same images, with 95 % intervals.

    A cluster is a group of images, such as the patches of one photo. If there are M clusters, M clusters are
    drawn with replacement (Efron and Tibshirani, 1993), and both networks get the same clusters. The images
    of the drawn clusters form a resampled set, on which the differences are computed. This is repeated
    `resamples` times. The interval of a metric reaches from the 2.5 % quantile to the 97.5 % quantile of the
    metric's differences. Resampled sets in which the metric is NaN are left out. The intervals account for
    the choice of clusters, but not for the choice of the training seed.

    a, b: float64 [N, K]: the results of each network, K numbers for each of N images, such as the pixel
    counts of a confusion matrix. statistic: a function that computes metrics from the results summed over
    images: float64 [K] -> dict of name -> value.
    clusters: int [N], the number of the cluster of each image.
    resamples: the number of resampled sets. seed: the seed of the random draws.
    Returns a dict: name of a metric -> (value of b - value of a, lower end, upper end). Metrics that are NaN
    for the given images are left out.
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    count = cluster.max() + 1
    cluster_sums = np.zeros([2, count, a.shape[1]])  # the results of each network, summed over each cluster
    for sums, rows in zip(cluster_sums, (a, b)):
        np.add.at(sums, cluster, rows)
    # [resamples, clusters]: how often each cluster is drawn in each resampled set
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    differences = [
        _subtract(statistic(sums_b), statistic(sums_a)) for sums_a, sums_b in zip(*(draws @ cluster_sums))
    ]
    found = _subtract(statistic(b.sum(0)), statistic(a.sum(0)))
    intervals = {
        name: np.nanquantile([each[name] for each in differences], [0.025, 0.975])
        for name, value in found.items()
        if np.isfinite(value)
    }
    return {name: (found[name], *interval) for name, interval in intervals.items()}


def welch(a, b):
    """Return the difference between the means of two samples, with its 95 % interval (Welch, 1947).

    a, b: the samples, each a sequence of at least two numbers.
    Returns (mean of b - mean of a, lower end, upper end). If the numbers are equal within each sample, both
    ends equal the difference.
    """
    variances = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    difference, total = np.mean(b) - np.mean(a), sum(variances)
    if not total:
        return difference, difference, difference
    degrees = total**2 / (variances[0] ** 2 / (len(a) - 1) + variances[1] ** 2 / (len(b) - 1))
    margin = _t_quantile(degrees) * total**0.5
    return difference, difference - margin, difference + margin


def _t_quantile(degrees):
    """Return the 97.5 % quantile of Student's t distribution. degrees: degrees of freedom, at least 1."""
    low, high = 1.9, 12.8  # the quantile is 12.706 for 1 degree and falls to 1.960 for infinitely many
    for _ in range(50):  # bisection
        t = (low + high) / 2
        # the probability of values below -t or above t
        outside = tf.math.betainc(tf.constant(degrees / 2, tf.float64), 0.5, degrees / (degrees + t**2))
        low, high = (t, high) if outside > 0.05 else (low, t)
    return t


def _subtract(values, others):
    """Subtract the dict `others` from the dict `values`, which have the same keys; return key -> float."""
    return {name: float(value) - float(others[name]) for name, value in values.items()}
