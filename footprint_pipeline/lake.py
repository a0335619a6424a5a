"""Where prepared data lies: paths only, one folder an AOI."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AoiFolder:
    """The prepared data of one AOI."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Held by whoever prepares it."""
        return self.folder.with_name(f".{self.folder.name}.lock")

    @property
    def raw(self) -> Path:
        """Downloads and unpacked tiles."""
        return self.folder / "raw"

    @property
    def layout(self) -> Path:
        """Which files the source holds, JSON."""
        return self.folder / "source.json"

    @property
    def tiles(self) -> Path:
        """The tile index, GeoParquet."""
        return self.folder / "tiles.parquet"

    @property
    def polygons(self) -> Path:
        """The polygon table, GeoParquet."""
        return self.folder / "building_polygons.parquet"

    @property
    def rejected_labels(self) -> Path:
        """Labels that were left out, CSV."""
        return self.folder / "labels_rejected.csv"

    @property
    def failed_checks(self) -> Path:
        """Blocking checks that failed when they last ran, JSON; not there when none did."""
        return self.folder / "failed_checks.json"

    @property
    def masks(self) -> Path:
        """Mask tiles, one GeoTIFF a tile."""
        return self.folder / "masks"

    @property
    def manifest(self) -> Path:
        """The split manifest, Parquet."""
        return self.folder / "split_manifest.parquet"


@dataclass(frozen=True)
class Lake:
    """All prepared data below one home folder."""

    home: Path

    def aoi(self, name: str) -> AoiFolder:
        """The folder of an AOI, there or not."""
        return AoiFolder(self.home / "lake" / name)

    def prepared(self) -> list[str]:
        """Names of the AOIs that have a split manifest, sorted."""
        return sorted(path.parent.name for path in (self.home / "lake").glob("*/split_manifest.parquet"))

    def failed(self) -> set[str]:
        """Names of the AOIs of which a blocking check failed when it last ran."""
        return {path.parent.name for path in (self.home / "lake").glob("*/failed_checks.json")}

    @property
    def cache(self) -> Path:
        """Memory-mapped tiles for training."""
        return self.home / "cache"

    @property
    def checkpoints(self) -> Path:
        """Weights of trainings under way, and what others made; one folder a digest of what is trained."""
        return self.home / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts when no server keeps them."""
        return self.home / "artifacts"

    @property
    def pulled(self) -> Path:
        """Registered versions that were fetched; one folder each."""
        return self.home / "pulled"

    @property
    def records(self) -> Path:
        """What one model stage hands to the next, JSON."""
        return self.home / "records"
