// error: this closure captures variables
fn main() -> multiproc::Result<()> {
    let manager = multiproc::Manager::start()?;
    let list = manager.list_of([1u64])?;
    let step = 2;
    list.update(0, move |item, ()| *item += step, ())?;
    Ok(())
}
