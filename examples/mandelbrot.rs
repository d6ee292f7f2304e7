//! The Mandelbrot set: rows of a picture that a pool paints in place.
//!
//! The picture lies in shared memory and is lent to the pool while it paints. Each task has a row
//! for itself, as a `&mut [Pixel]`; no row is sent, copied or locked.
//!
//! `cargo run --release --example mandelbrot -- picture.png`

use multiproc::{Pool, SharedVec};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const WIDTH: usize = 960;
const HEIGHT: usize = 720;
const LIMIT: u32 = 400;

type Pixel = [u8; 3];

/// After how many steps the point runs away, if it does.
fn steps(re: f64, im: f64) -> Option<u32> {
    let (mut x, mut y) = (0.0, 0.0);
    (0..LIMIT).find(|_| {
        (x, y) = (x * x - y * y + re, 2.0 * x * y + im);
        x * x + y * y > 4.0
    })
}

fn paint(y: usize, row: &mut [Pixel]) {
    let scale = 3.0 / WIDTH as f64;
    for (x, pixel) in row.iter_mut().enumerate() {
        let (re, im) = (x as f64 * scale - 2.2, (y as f64 - HEIGHT as f64 / 2.0) * scale);
        let shade = |steps: u32| (255.0 * (f64::from(steps) / f64::from(LIMIT)).powf(0.3)) as u8;
        *pixel = steps(re, im).map_or([0; 3], |steps| [shade(steps) / 2, shade(steps), 128]);
    }
}

fn write_png(path: &Path, picture: &[Pixel]) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(File::create(path)?, WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(picture.as_flattened())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new()?;
    let mut picture = SharedVec::<Pixel>::zeroed(WIDTH * HEIGHT)?;
    pool.for_each_chunk_mut_indexed(&mut picture, WIDTH, paint)?;
    println!("{} processes painted {HEIGHT} rows", pool.worker_pids().len());

    let mut serial = vec![[0; 3]; WIDTH * HEIGHT];
    serial.chunks_mut(WIDTH).enumerate().for_each(|(y, row)| paint(y, row));
    assert!(*picture == *serial, "it is what one process paints alone");

    let given = env::args_os().nth(1).map(PathBuf::from);
    let temporary = || env::temp_dir().join(format!("mandelbrot-{}.png", std::process::id()));
    let path = given.clone().unwrap_or_else(temporary);
    write_png(&path, &picture)?;
    println!("{} has {} bytes", path.display(), path.metadata()?.len());
    if given.is_none() {
        fs::remove_file(path)?; // give a path to keep the picture
    }
    Ok(())
}
