"""X-Wines as a folder for :mod:`benchmarks.taste`: 150,000 ratings of 1,007 wines by 10,561 users, 2012 to 2021.

``python -m benchmarks.wines ZIP FOLDER`` reads the archive of the data set's "Slim" version (de Azambuja, Morais &
Filipe 2023, doi:10.3390/bdcc7010020; CC0), ``XWines_Slim_1K_wines_150K_ratings.zip``. Ratings are 1 to 5 stars in
halves, each with its second; 58 % of them are four stars and more. Which vintage a user had is left out.
"""

import ast
import csv
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from zipfile import ZipFile

import typer

RATINGS, WINES = "XWines_Slim_150K_ratings.csv", "XWines_Slim_1K_wines.csv"


def main(archive: Path, folder: Path) -> None:
    """Write ``ratings.dat`` and ``items.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    with ZipFile(archive) as files, (folder / "ratings.dat").open("w") as ratings:
        for row in _rows(files, RATINGS):
            time = datetime.fromisoformat(row["Date"]).replace(tzinfo=UTC)
            ratings.write(f"{row['UserID']}::{row['WineID']}::{row['Rating']}::{int(time.timestamp())}\n")
        wines = sorted(_rows(files, WINES), key=lambda row: int(row["WineID"]))
    with (folder / "items.csv").open("w", newline="") as items:
        writer = csv.writer(items)
        writer.writerow(["wineId", "title", "genres", "text"])
        writer.writerows([row["WineID"], *described(row)] for row in wines)


def described(row: dict[str, str]) -> tuple[str, str, str]:
    """Title, genres and text of a wine."""
    genres = [row["Type"], row["Country"], row["RegionName"], *ast.literal_eval(row["Grapes"])]
    dishes = ", ".join(ast.literal_eval(row["Harmonize"]))
    text = f"{row['Elaborate']}, {row['ABV']} % alcohol, {row['Body']}, acidity {row['Acidity']}. Goes with {dishes}."
    return f"{row['WineName']}, {row['WineryName']}", "|".join(genres), text


def _rows(files: ZipFile, name: str) -> list[dict[str, str]]:
    with files.open(name) as file:
        return list(csv.DictReader(TextIOWrapper(file, "utf-8")))


if __name__ == "__main__":
    typer.run(main)
