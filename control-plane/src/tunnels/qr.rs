//! A configuration as a QR code, for the camera of a phone.

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, Luma};
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};

const MIN_PIXELS: u32 = 320;

/// Why a text has no QR code.
#[derive(Debug, thiserror::Error)]
pub(super) enum QrError {
    #[error("the text does not fit: {0}")]
    Code(#[from] qrcode::types::QrError),
    #[error("the picture cannot be encoded: {0}")]
    Picture(#[from] image::ImageError),
}

pub(super) fn as_svg(text: &str) -> Result<String, QrError> {
    Ok(code(text)?
        .render::<svg::Color<'_>>()
        .min_dimensions(MIN_PIXELS, MIN_PIXELS)
        .build())
}

pub(super) fn as_png(text: &str) -> Result<Vec<u8>, QrError> {
    let picture = code(text)?
        .render::<Luma<u8>>()
        .min_dimensions(MIN_PIXELS, MIN_PIXELS)
        .build();
    let mut png = Cursor::new(Vec::new());
    image::codecs::png::PngEncoder::new(&mut png).write_image(
        picture.as_raw(),
        picture.width(),
        picture.height(),
        ExtendedColorType::L8,
    )?;
    Ok(png.into_inner())
}

fn code(text: &str) -> Result<QrCode, QrError> {
    Ok(QrCode::with_error_correction_level(text, EcLevel::M)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pictures_are_what_they_say() {
        let text = "[Interface]\nAddress = 10.8.0.2/32\n";
        assert!(as_svg(text).expect("fits").contains("<svg"));
        assert!(as_png(text).expect("fits").starts_with(b"\x89PNG"));
    }

    #[test]
    fn a_text_that_does_not_fit_is_an_error() {
        assert!(matches!(as_svg(&"x".repeat(5000)), Err(QrError::Code(_))));
    }
}
