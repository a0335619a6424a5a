"""The model card of a judged network: what MLflow, the prepared data and the scores say of it, put together."""

from collections.abc import Mapping, Sequence

from footprint_pipeline.dataset.spec import SPLITS
from footprint_pipeline.evaluation import reports
from footprint_pipeline.evaluation.bootstrap import Interval
from footprint_pipeline.evaluation.card import CardFacts, render_card
from footprint_pipeline.evaluation.scoring import TestScores, TilePrediction
from footprint_pipeline.handover import ToleranceSweep, TrainedUnet
from footprint_pipeline.model import tracking
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.catalog import load_catalog
from footprint_pipeline.stages.scoring import load_manifest

END_TILES = 10
"""So many of the worst tiles and of the best ones are on the card."""
BOX_PLOT, CARD = "tolerance/box_plot.png", "test/model_card.html"
"""Artifacts of the run."""


def model_card(
    settings: Settings,
    trained: TrainedUnet,
    swept: ToleranceSweep,
    scores: TestScores,
    ranges: Mapping[str, Interval],
    ends: Sequence[TilePrediction],
) -> str:
    """The model card of a judged network, HTML.

    Args:
        settings: where prepared data lies.
        trained: the network.
        swept: how its footprints are made.
        scores: on the test tiles.
        ranges: of the scores.
        ends: the worst of these tiles and the best ones, worst to best.
    """
    manifest = load_manifest(settings.lake, list(trained.aois))
    licences = {name: area.licence for name, area in load_catalog(settings.home).items()}
    counts = manifest.groupby("aoi")["split"].value_counts().unstack(fill_value=0)
    splits = [name for name in SPLITS if name in counts]
    run = tracking.described(trained.run_id)
    middle = (len(ends) + 1) // 2

    def sheet(tiles: Sequence[TilePrediction]) -> bytes:
        return reports.contact_sheet(
            tiles,
            tolerance=swept.tolerance,
            own_tolerances=swept.own_tolerances,
            seed_level=swept.seed_level,
            height=220,
        )

    return render_card(
        scores,
        ranges,
        CardFacts(
            name=trained.network,
            facts={
                "MLflow run": trained.run_id,
                "commit": run.tags.get("git_commit", "not known"),
                "split digest": trained.split_digest,
                "resolution": f"{trained.gsd_m:.3f} m a pixel",
                "tolerance": f"{swept.tolerance:.2f}, by the rule {swept.rule}",
                **{f"tolerance of {aoi}": f"{own:.2f}" for aoi, own in swept.own_tolerances.items()},
                "tolerance by the article's rule": f"{swept.article_tolerance:.2f}",
                "smallest building": f"{swept.min_area_m2:g} m²",
                "touching buildings": "not told apart"
                if swept.seed_level is None
                else f"told apart at level {swept.seed_level:.2f}",
                "orientations averaged": str(swept.flips),
                **({"began from": trained.weights} if trained.weights else {}),
                "trained": f"{trained.epochs} epochs in {trained.seconds / 60:.1f} minutes, {trained.precision}",
                **{f"stretch of {aoi}": scale.describe() for aoi, scale in trained.normalization.items()},
            },
            recipe=dict(sorted(run.params.items())),
            data=[
                [str(aoi), *(str(row[name]) for name in splits), licences.get(str(aoi), "") or "not known"]
                for aoi, row in counts.iterrows()
            ],
            data_head=["area", *splits, "licence of imagery and labels"],
            calibration=swept.calibration,
            worst=sheet(ends[:middle][:END_TILES]),
            best=sheet(ends[middle:][-END_TILES:]),
            box_plot=tracking.read_file(settings.mlflow_uri, trained.run_id, BOX_PLOT),
        ),
    )
