use super::*;

const ONE: Demand = Demand { cpu_cores: 1, memory_bytes: 0 };

fn queue<T>(items: usize, bytes: u64) -> Queue<T> {
    let machine = Demand { cpu_cores: 1_000, memory_bytes: 1_000 };
    Queue::new(Limits { items, bytes, machine })
}

fn rank(client: &str, priority: i32, demand: Demand) -> Rank {
    Rank { priority, client: client.into(), demand, may_leave: true }
}

fn that_stays(client: &str, priority: i32) -> Rank {
    Rank { may_leave: false, ..rank(client, priority, ONE) }
}

fn plain() -> Rank {
    rank("", 0, ONE)
}

fn take<T>(queue: &Queue<T>) -> Option<T> {
    queue.pop().map(|taken| taken.item)
}

/// All items, in the order in which they are taken.
fn order<T: Copy>(queue: &Queue<T>) -> Vec<T> {
    queue.close();
    std::iter::from_fn(|| take(queue)).collect()
}

#[test]
fn items_of_one_client_come_out_in_order_and_the_bound_holds() {
    let queue = queue(2, 100);
    queue.push(1, 1, plain()).unwrap();
    queue.push(2, 1, plain()).unwrap();
    assert_eq!(queue.push(3, 1, plain()), Err(PushError::Full));
    assert_eq!(take(&queue), Some(1));
    queue.push(3, 1, plain()).unwrap();
    assert_eq!((take(&queue), take(&queue)), (Some(2), Some(3)));
    assert!(!queue.is_idle());
    for _ in 0..3 {
        queue.finished(ONE);
    }
    assert!(queue.is_idle());
}

#[test]
fn the_bound_can_change_and_what_waits_stays() {
    let queue = queue(1, 100);
    queue.push(1, 1, plain()).unwrap();
    assert_eq!(queue.push(2, 1, plain()), Err(PushError::Full));
    queue.set_items_max(3);
    queue.push(2, 1, plain()).unwrap();
    queue.set_items_max(1);
    assert_eq!(queue.push(3, 1, plain()), Err(PushError::Full));
    assert_eq!((take(&queue), take(&queue)), (Some(1), Some(2)));
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let queue = queue(10, 100);
    queue.push(1, 60, plain()).unwrap();
    assert_eq!(queue.push(2, 41, plain()), Err(PushError::TooManyBytes));
    queue.push(2, 40, rank("other", 0, ONE)).unwrap();
    assert_eq!(queue.push(3, 1, plain()), Err(PushError::TooManyBytes));
    assert_eq!(take(&queue), Some(1));
    queue.push(3, 60, plain()).unwrap();
}

#[test]
fn a_closed_queue_serves_what_waits_and_takes_nothing_new() {
    let queue = queue(2, 100);
    queue.push(1, 1, plain()).unwrap();
    queue.close();
    assert_eq!(queue.push(2, 1, plain()), Err(PushError::Closed));
    assert_eq!(order(&queue), [1]);
}

#[test]
fn a_client_with_many_items_does_not_hold_up_one_with_few() {
    let queue = queue(1_000, 1_000_000);
    for number in 0..200 {
        queue.push(("many", number), 1, rank("many", 0, ONE)).unwrap();
    }
    for number in 0..2 {
        queue.push(("few", number), 1, rank("few", 0, ONE)).unwrap();
    }
    let order = order(&queue);
    let first = [("many", 0), ("few", 0), ("many", 1), ("few", 1), ("many", 2), ("many", 3)];
    assert_eq!(order[..6], first);
    assert_eq!(order.len(), 202);
}

#[test]
fn a_client_that_floods_leaves_room_for_others() {
    let queue = queue(80, 1_000);
    let pushed = (0..100).filter(|_| queue.push(0, 1, rank("a", 0, ONE)).is_ok()).count();
    assert_eq!(pushed, 70);
    assert_eq!(queue.push(0, 1, rank("a", 0, ONE)), Err(PushError::ClientFull));
    assert_eq!(queue.push(0, 1, rank("b", 0, ONE)), Ok(()));
    assert_eq!(queue.push(0, 880, rank("b", 0, ONE)), Err(PushError::ClientFull));
    // The queue does not refuse an item for its size alone.
    let queue = self::queue(80, 1_000);
    assert_eq!(queue.push(0, 950, rank("b", 0, ONE)), Ok(()));
}

#[test]
fn urgent_items_go_first_and_starve_nobody() {
    let queue = queue(1_000, 1_000);
    for number in 0..8 {
        queue.push((-5, number), 1, rank("urgent", -5, ONE)).unwrap();
    }
    queue.push((0, 0), 1, rank("usual", 0, ONE)).unwrap();
    queue.push((7, 0), 1, rank("late", 7, ONE)).unwrap();
    let order: Vec<_> = order(&queue).into_iter().map(|(priority, _)| priority).collect();
    // The fourth and the eighth are of a round over all priorities, which begins with the first.
    assert_eq!(order, [-5, -5, -5, -5, -5, -5, -5, 0, -5, 7]);
}

#[test]
fn an_item_waits_for_its_room_and_nobody_passes_it() {
    let machine = Demand { cpu_cores: 4, memory_bytes: 100 };
    let queue = Arc::new(Queue::new(Limits { items: 10, bytes: 100, machine }));
    let demand = |cpu_cores, memory_bytes| Demand { cpu_cores, memory_bytes };
    queue.push("small", 1, rank("", 0, demand(1, 0))).unwrap();
    queue.push("large", 1, rank("", 0, demand(4, 10))).unwrap();
    queue.push("other", 1, rank("", 0, demand(1, 0))).unwrap();
    let small = queue.pop().unwrap();
    let taker = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.pop().unwrap()
    });
    // It can't have been taken: there is no room.
    std::thread::yield_now();
    assert_eq!(queue.state.lock().waiting.items, 2);
    queue.finished(small.demand);
    let large = taker.join().unwrap();
    assert_eq!((large.item, large.demand), ("large", demand(4, 10)));
    queue.finished(large.demand);
    assert_eq!(take(&queue), Some("other"));
}

#[test]
fn what_waits_too_long_is_taken_away_and_takes_nothing_of_the_machine() {
    let machine = Demand { cpu_cores: 1, memory_bytes: 0 };
    let queue = Queue::new(Limits { items: 10, bytes: 100, machine });
    for item in ["local", "away", "late"] {
        queue.push(item, 1, plain()).unwrap();
    }
    let local = queue.pop().unwrap();
    let away = queue.pop_overdue(Duration::ZERO, || true).unwrap();
    assert_eq!((local.item, away.item, away.demand), ("local", "away", Demand::NOTHING));
    // The one machine is busy, and what is away is no part of that.
    queue.finished(local.demand);
    assert_eq!(take(&queue), Some("late"));
    queue.finished(ONE);
    assert!(!queue.is_idle());
    queue.put_back(away.item, 1, plain()).unwrap();
    queue.finished(away.demand);
    assert_eq!(take(&queue), Some("away"));
    queue.finished(ONE);
    assert!(queue.is_idle());
    queue.close();
    assert_eq!(queue.put_back("away", 1, plain()), Err("away"));
}

#[test]
fn the_most_overdue_is_taken_whatever_its_priority() {
    let queue = queue(10, 100);
    queue.push("late", 1, rank("", 7, ONE)).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    queue.push("urgent", 1, rank("", -5, ONE)).unwrap();
    let taken = || queue.pop_overdue(Duration::ZERO, || true).unwrap().item;
    assert_eq!([taken(), taken()], ["late", "urgent"]);
}

#[test]
fn foreign_items_are_for_takers_of_overdue_ones_alone() {
    let queue = Arc::new(queue(2, 100));
    queue.push("foreign", 1, plain()).unwrap();
    let foreign = queue.pop().unwrap();
    queue.push_foreign(foreign.item, 1, plain()).unwrap();
    queue.finished(foreign.demand);
    assert!(!queue.is_idle());
    // It still counts.
    queue.push("other", 1, plain()).unwrap();
    assert_eq!(queue.push("third", 1, plain()), Err(PushError::Full));
    assert_eq!(take(&queue), Some("other"));
    queue.finished(ONE);
    // Taken although nothing is welcome that others can work on.
    let taken = queue.pop_overdue(Duration::ZERO, || false).unwrap();
    assert_eq!(taken.item, "foreign");
    queue.finished(taken.demand);
    queue.close();
    assert!(queue.pop_overdue(Duration::ZERO, || true).is_none() && queue.is_idle());
    assert_eq!(queue.push_foreign("late", 1, plain()), Err("late"));
}

#[test]
fn what_may_not_leave_stays_and_hides_nothing_behind_it() {
    for (client, priority) in [("one", 0), ("one", 1), ("other", 0)] {
        let queue = queue(10, 100);
        queue.push("stays", 1, that_stays("one", 0)).unwrap();
        queue.push("leaves", 1, rank(client, priority, ONE)).unwrap();
        queue.push("stays too", 1, that_stays(client, priority)).unwrap();
        let taken = queue.pop_overdue(Duration::ZERO, || true).unwrap();
        assert_eq!(taken.item, "leaves");
        assert_eq!(order(&queue), ["stays", "stays too"], "{client} {priority}");
    }
}

#[test]
fn what_is_taken_in_turn_can_not_leave_any_more() {
    let queue = queue(10, 100);
    for number in 0..4 {
        queue.push(number, 1, plain()).unwrap();
    }
    let leaving = || queue.pop_overdue(Duration::ZERO, || true).unwrap().item;
    assert_eq!((take(&queue), leaving(), take(&queue), leaving()), (Some(0), 1, Some(2), 3));
    queue.close();
    assert!(queue.pop_overdue(Duration::ZERO, || true).is_none());
}

#[test]
fn foreign_items_are_bounded_and_fair_as_others_are() {
    let queue = queue(8, 100);
    for number in 0..6 {
        queue.push(("many", number), 1, rank("many", 0, ONE)).unwrap();
        let taken = queue.pop().unwrap();
        queue.push_foreign(taken.item, 1, rank("many", 0, ONE)).unwrap();
        queue.finished(taken.demand);
    }
    queue.push(("many", 6), 1, rank("many", 0, ONE)).unwrap();
    assert_eq!(queue.push(("many", 7), 1, rank("many", 0, ONE)), Err(PushError::ClientFull));
    queue.push_foreign(("few", 0), 1, rank("few", 0, ONE)).unwrap();
    let taken = || queue.pop_overdue(Duration::ZERO, || false).unwrap().item;
    assert_eq!([taken(), taken(), taken()], [("many", 0), ("few", 0), ("many", 1)]);
}

/// Takers that wait for an hour, and what ends when the queue is closed and empty.
#[test]
fn a_closed_queue_ends_takers_of_overdue_items_once_others_have_emptied_it() {
    for may_leave in [true, false] {
        let queue = Arc::new(queue(10, 100));
        for item in ["one", "two"] {
            queue.push(item, 1, Rank { may_leave, ..plain() }).unwrap();
        }
        let takers = [(); 3].map(|()| {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                queue.pop_overdue(Duration::from_secs(3600), || true).is_none()
            })
        });
        queue.close();
        assert_eq!([take(&queue), take(&queue)], [Some("one"), Some("two")]);
        assert!(takers.into_iter().all(|taker| taker.join().unwrap()));
    }
}

#[test]
fn what_is_taken_away_makes_room_for_others() {
    let machine = Demand { cpu_cores: 2, memory_bytes: 0 };
    let queue = Arc::new(Queue::new(Limits { items: 10, bytes: 100, machine }));
    let large = Demand { cpu_cores: 2, memory_bytes: 0 };
    queue.push("first", 1, plain()).unwrap();
    let first = queue.pop().unwrap();
    queue.push("large", 1, rank("", 0, large)).unwrap();
    let taker = || {
        let queue = Arc::clone(&queue);
        std::thread::spawn(move || take(&queue))
    };
    let (waits, ends) = (taker(), taker());
    let away = queue.pop_overdue(Duration::ZERO, || true).unwrap();
    assert_eq!((first.item, away.item), ("first", "large"));
    queue.push("small", 1, plain()).unwrap();
    queue.close();
    let mut taken = [waits.join().unwrap(), ends.join().unwrap()];
    taken.sort_unstable();
    assert_eq!(taken, [None, Some("small")]);
}

#[test]
fn takers_of_overdue_items_are_woken() {
    let queue = Arc::new(queue(10, 100));
    let taker = || {
        let queue = Arc::clone(&queue);
        std::thread::spawn(move || {
            let taken = queue.pop_overdue(Duration::from_millis(1), || true)?;
            queue.finished(taken.demand);
            Some(taken.item)
        })
    };
    let takers = [taker(), taker(), taker()];
    queue.push(1, 1, plain()).unwrap();
    queue.push(2, 1, plain()).unwrap();
    queue.push_foreign(3, 1, plain()).unwrap();
    let mut taken = takers.map(|taker| taker.join().unwrap().unwrap());
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 3]);
    let last = taker();
    queue.close();
    assert_eq!(last.join().unwrap(), None);
}

#[test]
fn an_item_that_is_larger_than_the_machine_runs_alone() {
    let machine = Demand { cpu_cores: 2, memory_bytes: 100 };
    let queue = Queue::new(Limits { items: 10, bytes: 100, machine });
    let huge = Demand { cpu_cores: 64, memory_bytes: 1 << 40 };
    queue.push(1, 1, rank("", 0, huge)).unwrap();
    let taken = queue.pop().unwrap();
    assert_eq!(taken.demand, machine);
    queue.finished(taken.demand);
    assert!(queue.is_idle());
}
