// error: `&str` must implement
fn main() -> multiproc::Result<()> {
    let manager = multiproc::Manager::start()?;
    let words = manager.dict()?;
    words.insert("a", 1)?;
    Ok(())
}
