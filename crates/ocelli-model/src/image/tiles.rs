//! InternVL's dynamic tiling: the picture is cut into up to twelve square tiles, and a thumbnail shows the whole
//! (InternVL 1.5, arXiv 2404.16821, section 3.2; reference `GotOcr2ImageProcessor` with `crop_to_patches`,
//! transformers 5.23; the same rule in Skywork R1V's inference code).
//!
//! Patches of a tile lie row by row; inside a patch: channel, row, column. The thumbnail is the last crop.

use ::image::RgbImage;
use serde_json::Value;

use super::patches::positive;
use super::{Grid, ImageError, ImagePatches, Normalise, resize_bicubic};

/// Settings of the tiling preprocessor.
#[derive(Clone, Debug, PartialEq)]
pub struct TilePreprocessor {
    /// Side of a tile in pixels (448).
    pub tile: usize,
    /// Side of a patch in pixels (14).
    pub patch: usize,
    /// Patches along each side of a token: 1 / `downsample_ratio` (2).
    pub merge: usize,
    /// Fewest tiles.
    pub min_tiles: usize,
    /// Most tiles, without the thumbnail.
    pub max_tiles: usize,
    /// Level statistics.
    pub normalise: Normalise,
}

impl TilePreprocessor {
    pub(super) fn apply(&self, image: &RgbImage) -> ImagePatches {
        let tile = self.tile as u32;
        let (columns, rows) = tile_grid(image.width(), image.height(), tile, self.min_tiles, self.max_tiles);
        let side = self.tile / self.patch;
        let grid = Grid { h: side, w: side };
        let dim = 3 * self.patch * self.patch;
        let crops = columns * rows + usize::from(columns * rows > 1);
        let mut pixels = Vec::with_capacity(crops * grid.len() * dim);
        let whole = resize_bicubic(image, tile * columns as u32, tile * rows as u32);
        for n in 0..columns * rows {
            self.cut(&whole, n % columns * self.tile, n / columns * self.tile, &mut pixels);
        }
        if crops > 1 {
            self.cut(&resize_bicubic(image, tile, tile), 0, 0, &mut pixels);
        }
        let tokens = crops * grid.len() / (self.merge * self.merge);
        ImagePatches { pixels, dim, grids: vec![grid; crops], tokens }
    }

    /// Appends the patches of the tile whose upper left corner is at (`x`, `y`).
    fn cut(&self, image: &RgbImage, x: usize, y: usize, out: &mut Vec<f32>) {
        let table = self.normalise.table();
        let row = image.width() as usize * 3;
        let source = image.as_raw();
        for py in (y..y + self.tile).step_by(self.patch) {
            for px in (x..x + self.tile).step_by(self.patch) {
                for c in 0..3 {
                    for line in py..py + self.patch {
                        let from = &source[line * row + px * 3..][..self.patch * 3];
                        out.extend(from.chunks_exact(3).map(|p| table[c][usize::from(p[c])]));
                    }
                }
            }
        }
    }

    pub(super) fn read_config(&mut self, config: &Value) -> Result<(), ImageError> {
        let size = config.get("size").unwrap_or(&Value::Null);
        let (height, width) = (positive(size, "height")?, positive(size, "width")?);
        if height != width {
            return Err(ImageError::Config(format!("tiles must be square, `size` is {size}")));
        }
        if let Some(n) = height {
            self.tile = n as usize;
        }
        if let Some(n) = positive(config, "min_patches")? {
            self.min_tiles = n as usize;
        }
        if let Some(n) = positive(config, "max_patches")? {
            self.max_tiles = n as usize;
        }
        let whole = self.tile.is_multiple_of(self.patch * self.merge);
        if !whole || self.tile > 4096 || self.min_tiles > self.max_tiles || self.max_tiles > 64 {
            let Self { tile, min_tiles, max_tiles, .. } = *self;
            let unit = self.patch * self.merge;
            return Err(ImageError::Config(format!(
                "`size` {tile}, min_patches {min_tiles}, max_patches {max_tiles}: a tile has a multiple of {unit} and at most 4096 pixels on a \
                 side, and there are at most 64 of them"
            )));
        }
        Ok(())
    }
}

/// Columns and rows of tiles: the grid whose shape is nearest to the picture's.
///
/// Of two grids equally near, the one with more tiles wins if the picture has more than half as many pixels as it.
pub fn tile_grid(width: u32, height: u32, tile: u32, min_tiles: usize, max_tiles: usize) -> (usize, usize) {
    let mut grids: Vec<(usize, usize)> = (1..=max_tiles)
        .flat_map(|columns| (1..=max_tiles).map(move |rows| (columns, rows)))
        .filter(|(columns, rows)| (min_tiles..=max_tiles).contains(&(columns * rows)))
        .collect();
    grids.sort_by_key(|(columns, rows)| columns * rows);
    let shape = f64::from(width) / f64::from(height);
    let area = f64::from(width) * f64::from(height);
    let tile_area = f64::from(tile) * f64::from(tile);
    let (mut best, mut distance) = ((1, 1), f64::INFINITY);
    for (columns, rows) in grids {
        let off = (shape - columns as f64 / rows as f64).abs();
        let fills = area > 0.5 * tile_area * (columns * rows) as f64;
        if off < distance || (off == distance && fills) {
            (best, distance) = ((columns, rows), off);
        }
    }
    best
}
