// error: expected `String`, found `&str`
// error: "a".to_string()
// error: a `String` is to be looked up, and this is a `u32`
// error: pass a reference to the key, or `&str` for a `String`
use multiproc::Manager;
use multiproc::manager::Dict;

fn main() -> multiproc::Result<()> {
    let manager = Manager::start()?;
    let words: Dict<String, u32> = manager.dict()?;
    words.insert("a", 1)?;
    words.get(&1u32)?;
    Ok(())
}
