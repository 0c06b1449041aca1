//! Answers of several requests on one stream: single ones in the order of the requests, the steps of generations as they come.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt,
    stream::{BoxStream, Fuse, SelectAll},
};

/// What a request of a stream has become.
pub(super) enum Begun<T> {
    /// Its one answer.
    Answered(T),
    /// A generation under way.
    Generates(BoxStream<'static, T>),
}

/// Gives the answers of at most `most` generations at a time; a request beyond waits for one to end.
pub(super) fn interleave<S, T>(begun: S, most: usize) -> Interleaved<S, T>
where
    S: Stream<Item = Begun<T>> + Unpin,
{
    Interleaved { begun: begun.fuse(), generations: SelectAll::new(), most, generations_next: false, changed: false }
}

pub(super) struct Interleaved<S, T> {
    begun: Fuse<S>,
    generations: SelectAll<BoxStream<'static, T>>,
    most: usize,
    /// In turns, so that many short requests do not silence a generation, nor the other way round.
    generations_next: bool,
    /// A generation was taken in or has ended since all was polled.
    changed: bool,
}

impl<S, T> Interleaved<S, T>
where
    S: Stream<Item = Begun<T>> + Unpin,
{
    /// The next single answer. Generations that begin meanwhile are taken in.
    fn poll_begun(&mut self, context: &mut Context<'_>) -> Option<T> {
        while self.generations.len() < self.most {
            match self.begun.poll_next_unpin(context) {
                Poll::Ready(Some(Begun::Answered(answer))) => return Some(answer),
                Poll::Ready(Some(Begun::Generates(steps))) => {
                    self.generations.push(steps);
                    self.changed = true;
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        None
    }

    fn poll_generations(&mut self, context: &mut Context<'_>) -> Option<T> {
        let before = self.generations.len();
        // Without any it says that it has ended, which is not for ever.
        let step = match self.generations.poll_next_unpin(context) {
            Poll::Ready(step) => step,
            Poll::Pending => None,
        };
        self.changed |= self.generations.len() != before;
        step
    }
}

impl<S, T> Stream for Interleaved<S, T>
where
    S: Stream<Item = Begun<T>> + Unpin,
    T: Unpin,
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.generations_next = !self.generations_next;
        loop {
            self.changed = false;
            let next = match self.generations_next {
                true => self.poll_begun(context).or_else(|| self.poll_generations(context)),
                false => self.poll_generations(context).or_else(|| self.poll_begun(context)),
            };
            match next {
                // What has ended makes room for what waits, and what was taken in has not been polled.
                None if self.changed => {}
                None if self.begun.is_done() && self.generations.is_empty() => return Poll::Ready(None),
                None => return Poll::Pending,
                some => return Poll::Ready(some),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn steps(name: char, count: usize) -> Begun<String> {
        // Each is ready one poll later.
        let steps = stream::unfold(0, move |at| async move {
            let mut waited = false;
            let pause = std::future::poll_fn(move |context| match std::mem::replace(&mut waited, true) {
                true => Poll::Ready(()),
                false => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            });
            pause.await;
            (at < count).then(|| (format!("{name}{at}"), at + 1))
        });
        Begun::Generates(steps.boxed())
    }

    fn answers(begun: Vec<Begun<String>>, most: usize) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(interleave(stream::iter(begun), most).collect())
    }

    fn place(said: &[String], of: &str) -> usize {
        said.iter().position(|one| one == of).unwrap()
    }

    #[test]
    fn generations_pass_each_other_and_single_answers_keep_their_order() {
        let single = |number: usize| Begun::Answered(number.to_string());
        let begun = vec![steps('a', 50), single(0), single(1), steps('b', 2), single(2), single(3)];
        let said = answers(begun, 64);
        assert_eq!(said.len(), 56);
        let singles: Vec<&str> = said.iter().filter(|one| one.len() == 1).map(String::as_str).collect();
        assert_eq!(singles, ["0", "1", "2", "3"]);
        let of = |name: char| -> Vec<&String> { said.iter().filter(|one| one.starts_with(name)).collect() };
        assert!(of('a').iter().enumerate().all(|(at, one)| **one == format!("a{at}")));
        assert!(place(&said, "b1") < place(&said, "a20") && place(&said, "3") < place(&said, "a20"), "{said:?}");
    }

    #[test]
    fn no_more_than_so_many_generations_are_under_way() {
        let said = answers(vec![steps('a', 3), steps('b', 3), steps('c', 1)], 2);
        assert!(place(&said, "c0") > place(&said, "a2").min(place(&said, "b2")), "{said:?}");
        assert_eq!(said.len(), 7);
        assert!(answers(Vec::new(), 2).is_empty());
    }
}
