//! What the ends of pipes have in common: how they travel, and the verbs.

/// Clones, travel and debugging of an end; which of its directions it has, by the type of their
/// messages.
macro_rules! ends {
    ($name:ident<$($type:ident),*>, $outward:expr, $inward:expr) => {
        impl<$($type),*> Clone for $name<$($type),*> {
            fn clone(&self) -> Self {
                Self(self.0.clone(), PhantomData)
            }
        }

        impl<$($type),*> std::fmt::Debug for $name<$($type),*> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }

        impl<$($type: Data),*> serde::Serialize for $name<$($type),*> {
            fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                self.0.serialize(serializer)
            }
        }

        impl<'de, $($type: Data),*> serde::Deserialize<'de> for $name<$($type),*> {
            fn deserialize<Z: serde::Deserializer<'de>>(from: Z) -> Result<Self, Z::Error> {
                End::deserialize(from, $outward, $inward).map(Self::of)
            }
        }

        impl<$($type: Data),*> $name<$($type),*> {
            pub(super) fn of(end: Arc<End>) -> Self {
                Self(end, PhantomData)
            }

            /// Closes this end in this process, with all of its clones here, as if all were
            /// dropped; other processes keep theirs. Python's `Connection.close`.
            ///
            /// It is for forked children, which inherit the ends that their parent keeps for
            /// itself, and cannot drop them: as long as they have one, they never see that it is
            /// gone. Elsewhere dropping does it. (A pool's worker has an end only once: closing
            /// it closes that of its other tasks, too.)
            ///
            /// After that sending is an error, as if nobody read, and receiving gives what is
            /// there, and then the end of file.
            ///
            /// ```
            /// use multiproc::Pipe;
            ///
            /// let (sender, receiver) = Pipe::one_way()?;
            /// let clone = sender.clone();
            /// sender.send(1_u8)?;
            /// clone.close()?;
            /// assert!(sender.send(2).unwrap_err().is_closed());
            /// assert_eq!(receiver.recv()?, 1);
            /// assert!(receiver.recv().unwrap_err().is_end_of_file());
            /// # Ok::<(), multiproc::Error>(())
            /// ```
            ///
            /// # Errors
            /// [`is_os`](crate::Error::is_os) if there is no file descriptor for a moment.
            pub fn close(&self) -> Result<()> {
                self.0.close()
            }
        }
    };
}
pub(super) use ends;

/// The methods of an end that sends.
macro_rules! sends {
    ($name:ident<$($type:ident),*>, $message:ty) => {
        impl<$($type: Data),*> $name<$($type),*> {
            /// Sends a message, and waits while the pipe is full.
            ///
            /// # Errors
            /// [`is_closed`](crate::Error::is_closed) if nobody can receive it any more. What
            /// is sent within 50 us after the other side was killed may be sent in vain.
            /// [`is_encode`](crate::Error::is_encode) if it cannot be encoded,
            /// [`is_too_large`](crate::Error::is_too_large) if it has more than 8 GiB,
            /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it.
            #[inline]
            pub fn send(&self, message: impl Given<$message>) -> Result<()> {
                item::encoded(message.given(), |parts, carried| {
                    self.0.send_all(parts, What::Value, &carried)
                })
            }

            /// As [`send`](Self::send), without waiting: false if the pipe is full.
            ///
            /// # Errors
            /// As [`send`](Self::send).
            pub fn try_send(&self, message: impl Given<$message>) -> Result<bool> {
                item::encoded(message.given(), |parts, carried| {
                    self.0.send(parts, What::Value, &carried, Deadline::now())
                })
            }

            /// As [`send`](Self::send), waiting for `timeout` at most. Zero means try,
            /// [`Duration::MAX`] for ever.
            ///
            /// # Errors
            /// As [`send`](Self::send), and [`is_timeout`](crate::Error::is_timeout) if the pipe
            /// was full all the time.
            pub fn send_timeout(
                &self,
                message: impl Given<$message>,
                timeout: Duration,
            ) -> Result<()> {
                let sent = item::encoded(message.given(), |parts, carried| {
                    self.0.send(parts, What::Value, &carried, Deadline::after(timeout))
                })?;
                if sent { Ok(()) } else { Err(line::timeout("room in the pipe", timeout)) }
            }

            /// Sends bytes as they are: a message for
            /// [`recv_bytes`](crate::PipeReceiver::recv_bytes).
            ///
            /// # Errors
            /// As [`send`](Self::send).
            pub fn send_bytes(&self, bytes: impl AsRef<[u8]>) -> Result<()> {
                let parts = [bytes.as_ref(), &[]];
                self.0.send_all(parts, What::Raw, &Carried::new())
            }

            /// As [`send_bytes`](Self::send_bytes), waiting so long at most: zero is a try,
            /// centuries are for ever.
            ///
            /// # Errors
            /// As [`send_timeout`](Self::send_timeout).
            pub fn send_bytes_timeout(
                &self,
                bytes: impl AsRef<[u8]>,
                timeout: Duration,
            ) -> Result<()> {
                let (parts, until) = ([bytes.as_ref(), &[]], Deadline::after(timeout));
                match self.0.send(parts, What::Raw, &Carried::new(), until)? {
                    true => Ok(()),
                    false => Err(line::timeout("room in the pipe", timeout)),
                }
            }

            /// Whether nobody can receive any more what is sent here.
            #[must_use]
            pub fn is_closed(&self) -> bool {
                self.0.is_alone()
            }
        }
    };
}
pub(super) use sends;

/// The methods of an end that receives, and its iterator.
macro_rules! receives {
    ($name:ident<$($type:ident),*>, $message:ty) => {
        impl<$($type: Data),*> $name<$($type),*> {
            /// Receives a message, and waits for it.
            ///
            /// # Errors
            /// [`is_end_of_file`](crate::Error::is_end_of_file) if nobody can send any more, and
            /// everything was received. [`is_decode`](crate::Error::is_decode) if the message
            /// cannot be decoded; one that is raw bytes is left there for
            /// [`recv_bytes`](Self::recv_bytes). [`is_os`](crate::Error::is_os) if it names shared
            /// objects and this process has too many open files: then it is still there.
            #[inline]
            pub fn recv(&self) -> Result<$message> {
                loop {
                    if let Some(message) = self.recv_until(Deadline::NEVER)? {
                        return Ok(message);
                    }
                }
            }

            /// As [`recv`](Self::recv), without waiting: `None` if there is no message now.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            pub fn try_recv(&self) -> Result<Option<$message>> {
                self.recv_until(Deadline::now())
            }

            /// As [`recv`](Self::recv), waiting for `timeout` at most. Zero means try,
            /// [`Duration::MAX`] for ever.
            ///
            /// # Errors
            /// As [`recv`](Self::recv), and [`is_timeout`](crate::Error::is_timeout) if nothing
            /// came.
            pub fn recv_timeout(&self, timeout: Duration) -> Result<$message> {
                let message = self.recv_until(Deadline::after(timeout))?;
                message.ok_or_else(|| line::timeout("message", timeout))
            }

            #[inline]
            fn recv_until(&self, deadline: Deadline) -> Result<Option<$message>> {
                let message =
                    self.0.recv::<Arrived<$message>>(What::Value, usize::MAX, deadline)?;
                message.map(|(message, received)| message.decoded(received)).transpose()
            }

            /// Receives a message that was sent by `send_bytes`, of `max` bytes at most.
            ///
            /// # Errors
            /// As [`recv`](Self::recv); [`is_too_large`](crate::Error::is_too_large) if the message
            /// has more than `max` bytes, [`is_decode`](crate::Error::is_decode) if it is a value:
            /// both leave it there, to be received otherwise.
            pub fn recv_bytes(&self, max: usize) -> Result<Vec<u8>> {
                loop {
                    if let Some((bytes, _)) =
                        self.0.recv::<Bytes>(What::Raw, max, Deadline::NEVER)?
                    {
                        return Ok(bytes.into_vec());
                    }
                }
            }

            /// As [`recv_bytes`](Self::recv_bytes), waiting so long at most: zero is a try,
            /// centuries are for ever.
            ///
            /// # Errors
            /// As [`recv_bytes`](Self::recv_bytes), and [`is_timeout`](crate::Error::is_timeout) if
            /// nothing came.
            pub fn recv_bytes_timeout(&self, max: usize, timeout: Duration) -> Result<Vec<u8>> {
                match self.0.recv::<Bytes>(What::Raw, max, Deadline::after(timeout))? {
                    Some((bytes, _)) => Ok(bytes.into_vec()),
                    None => Err(line::timeout("message", timeout)),
                }
            }

            /// As [`recv_bytes`](Self::recv_bytes), into a buffer, whose length is the maximum;
            /// returns how many bytes came.
            ///
            /// # Errors
            /// As [`recv_bytes`](Self::recv_bytes).
            pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize> {
                loop {
                    if let Some((bytes, _)) =
                        self.0.recv::<Bytes>(What::Raw, buffer.len(), Deadline::NEVER)?
                    {
                        let bytes = bytes.as_slice();
                        buffer[..bytes.len()].copy_from_slice(bytes);
                        return Ok(bytes.len());
                    }
                }
            }

            /// Waits until there is something to be received, be it the end of file, for `timeout`
            /// at most; whether there is. Zero means look.
            ///
            /// # Errors
            /// None today.
            pub fn poll(&self, timeout: Duration) -> Result<bool> {
                self.0.poll(Deadline::after(timeout))
            }

            /// The number of messages that wait here.
            #[must_use]
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether no message waits here.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The messages, one after the other, until the end of file.
            pub fn iter(&self) -> Messages<'_, $message> {
                Messages::new(move || self.recv())
            }

            /// For those who wait on descriptors.
            pub(in crate::channel) fn parts(&self) -> Result<(&Ring, &Post)> {
                self.0.readable()
            }
        }

        impl<'a, $($type: Data),*> IntoIterator for &'a $name<$($type),*> {
            type Item = Result<$message>;
            type IntoIter = Messages<'a, $message>;

            fn into_iter(self) -> Messages<'a, $message> {
                self.iter()
            }
        }
    };
}
pub(super) use receives;
