//! The manager's proxies, across processes.

mod common;

use common::sync::{finish, finish_all, start};
use common::watchdog;
use multiproc::Manager;
use multiproc::manager::List;

#[test]
fn what_one_process_puts_into_a_list_another_finds() {
    watchdog();
    let manager = Manager::start().unwrap();
    let list = manager.list::<String>().unwrap();
    let push = |list: List<String>, who: u32| {
        for number in 0..50 {
            list.push(format!("{who}:{number}")).expect("the server lives");
        }
    };
    finish_all([0, 1, 2].map(|who| start(push, (list.clone(), who))));
    assert_eq!(list.len().unwrap(), 150);
    for who in 0..3 {
        let own = format!("{who}:");
        let items = list.iter().unwrap().filter(|item| item.starts_with(&own));
        let numbers: Vec<String> = items.map(|item| item[own.len()..].to_owned()).collect();
        assert_eq!(numbers, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    let other = finish(start(|list: List<String>| list, (list.clone(),)));
    assert_eq!(other, list);
}
