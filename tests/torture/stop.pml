/* stop.pml - the accept loop, the stop and the count of clients, as a model in
 * Promela. Spin lets the processes take their steps in every order there is.
 * A process or inline has the name of the function whose steps it takes. Behind
 * //@ stands the line of server.c or handler.c that a step stands for; `make
 * model` compares. What a d_step { } holds is one single step.
 *
 * There is no clock. A round of the stop is over when nothing else can happen;
 * with ANY_TIME it may be over at any moment, as on a machine with much else to
 * do. Not modelled: the time limits in handler.c, and how bytes make a request. */
#define CLIENTS 3
#define SOMAXCONN 1
#define BACKLOG 2 /* Linux takes one more than it was told */
#define LIMIT 2 /* ./server -m 2 */
#define STOP_ROUNDS 3
/* What the kernel knows. */
chan backlog = [BACKLOG] of { byte };    /* connected, not yet accepted */
bool listening = true, nonblocking;      /* the listening socket */
byte arrived, sockets;                   /* clients so far; their sockets here */
bool request[CLIENTS], hung_up[CLIENTS], closed[CLIENTS];
bool receiving[CLIENTS], woken[CLIENTS]; /* in recv(); a signal came there */
bool accepting, interrupted, restarted;  /* in accept(); a signal came there */
bool waiting;                            /* for everybody_left */
/* What server.c knows. */
bool stopping, lock, ring[CLIENTS];
byte stop_rounds, connected;
bool owed[CLIENTS]; /* a reply or a refusal: who sent before the stop gets it */

/* A client connects. Then it sends a request, or hangs up, or stays silent. */
active [CLIENTS] proctype client() {
    if
    :: d_step { listening && nfull(backlog) && arrived == _pid -> backlog!_pid; arrived++ } // connect()
    :: !listening -> closed[_pid] = true // connect(): Connection refused
    fi;
    if
    :: d_step { !closed[_pid] -> request[_pid] = true; owed[_pid] = !stopping } // send()
    :: d_step { !closed[_pid] -> hung_up[_pid] = true } // close()
    :: true // is silent
    fi
}
inline out_of_accept() { accepting = false; interrupted = false; restarted = false }
inline out_of_recv() { receiving[me] = false; woken[me] = false }
inline pthread_mutex_lock() { d_step { !lock -> lock = true } } // pthread_mutex_lock(&lock)
inline pthread_mutex_unlock() {
    d_step { assert(connected == ring[0] + ring[1] + ring[2] && connected <= LIMIT); lock = false } } // pthread_mutex_unlock(&lock)
inline close_it(who) { sockets--; closed[who] = true; request[who] = false; hung_up[who] = false }

/* recv() returns bytes, or end of file, or EINTR even if those have arrived. */
inline receive() {
    receiving[me] = true; //@ count = recv(talk->socket, talk->buffer + talk->input_length,
end_recv: if
    :: d_step { request[me] -> out_of_recv(); request[me] = false; owed[me] = false } //@ if (count > 0) {
    :: d_step { hung_up[me] -> out_of_recv() }; break //@ } else if (count == 0) {
    :: d_step { woken[me] && (request[me] || hung_up[me]) -> out_of_recv() } //@ } else if (errno == EINTR) {
    :: d_step { woken[me] && !(request[me] || hung_up[me]) -> out_of_recv() }; break //@ if (is_stopping(talk) && !has_arrived(talk->socket))
    fi
}

inline leave() {
    pthread_mutex_lock(); //@ pthread_mutex_lock(&lock);
    d_step { close_it(me) }; //@ close(client->socket);
    ring[me] = false; //@ client->previous->next = client->next;
    connected--; //@ connected--;
    if //@ if (connected == 0)
    :: connected == 0 -> waiting = false //@ pthread_cond_signal(&everybody_left);
    :: else fi;
    pthread_mutex_unlock() //@ pthread_mutex_unlock(&lock);
}
/* A client's thread. To take a lock and give it back at once is to wait for it. */
proctype serve(byte me) {
    !lock; //@ pthread_mutex_lock(&lock);
    //@ pthread_mutex_unlock(&lock);
    do :: receive() od; //@ converse(client->socket, &terms);
    leave() //@ leave(client);
}

inline start_thread() {
    pthread_mutex_lock(); //@ pthread_mutex_lock(&lock);
    if :: connected >= LIMIT -> error = true //@ if (connected >= limit) {
    :: else -> assert(sockets <= LIMIT); /* where a place is free a descriptor is */
        run serve(who); //@ pthread_create(&client->thread, &thread_attributes, serve, client);
        ring[who] = true; //@ ring.next = client;
        connected++ //@ connected++;
    fi;
    pthread_mutex_unlock() //@ pthread_mutex_unlock(&lock);
}

inline admit() {
    if :: stopping -> inherited = false :: else fi; //@ if (stopping)
    assert(!inherited); /* or recv() would not wait */
    start_thread(); //@ error = start_thread(&client, tuple);
    if :: d_step { error -> error = false; owed[who] = false; close_it(who) } :: else fi //@ refuse(socket, words);
}

inline pthread_kill(i) { woken[i] = woken[i] || ring[i] && receiving[i] } // before recv() it wakes nobody
inline wait_for_clients() {
    pthread_mutex_lock(); //@ pthread_mutex_lock(&lock);
    if //@ if (stopping) {
    :: stopping -> stop_rounds++; //@ stop_rounds++;
        pthread_kill(0); pthread_kill(1); pthread_kill(2) //@ pthread_kill(each->thread, SIGURG);
    :: else fi;
    if :: connected > 0 || !stopping -> //@ if (connected > 0 || !stopping)
        d_step { waiting = true; lock = false }; //@ pthread_cond_timedwait(&everybody_left, &lock, &until);
        if :: !waiting // it was signalled
        :: timeout || ANY_TIME -> assert(ANY_TIME || listening || connected > 0); waiting = false // the round is over: is anybody left?
        fi;
        pthread_mutex_lock()
    :: else fi;
    again = connected > 0 && stop_rounds < STOP_ROUNDS; //@ again = connected > 0 && stop_rounds < STOP_ROUNDS;
    pthread_mutex_unlock() //@ pthread_mutex_unlock(&lock);
}

inline accept_clients() {
restart: do
    :: d_step { after_stop < SOMAXCONN + STOP_ROUNDS + 3 -> //@ for (int after_stop = 0; after_stop < SOMAXCONN + STOP_ROUNDS + 3;
            //@ after_stop += stopping) {
            accepting = true; blocking = !nonblocking }; //@ accept(listening_socket, (struct sockaddr *)&peer, &length);
        if :: d_step { backlog?who -> out_of_accept(); sockets++; inherited = nonblocking };
            admit() //@ admit(socket, endpoint(&peer, length));
        :: d_step { empty(backlog) && !blocking -> out_of_accept() }; // EAGAIN
            if :: stopping -> break //@ } else if (stopping &&
            :: else -> assert(false) fi // the log tells of an error: is there one?
        :: d_step { interrupted && blocking -> out_of_accept() } // EINTR
        :: d_step { restarted -> out_of_accept() }; goto restart // SA_RESTART
        :: d_step { failures > 0 -> failures--; out_of_accept() }; // EMFILE
            if :: stopping && stop_rounds >= STOP_ROUNDS -> break //@ (errno == EAGAIN || stop_rounds >= STOP_ROUNDS)) {
            :: else -> wait_for_clients() fi //@ wait_for_clients();
        fi;
        after_stop = after_stop + stopping // after_stop += stopping
    :: else -> break
    od
}

active proctype main() {
    byte who, after_stop, failures = FAILURES;
    bool error, again, blocking, inherited;
    accept_clients(); //@ accept_clients();
    listening = false; //@ close(listening_socket);
    do :: wait_for_clients(); if :: again :: else -> break fi od; //@ while (wait_for_clients())
    assert(ANY_TIME && stop_rounds == STOP_ROUNDS || connected == 0 && !owed[0] && !owed[1] && !owed[2]) // has everybody left, and got what was owed?
}

/* The signal. Its handler runs in the main thread, between any two steps, or in
 * a client's. In the main thread SA_RESTART lets accept() begin anew; in another
 * thread the handler has to end accept() with SIGURG. */
active [SIGNALS] proctype on_stop() {
    d_step { stopping || _pid == CLIENTS + 1 -> stopping = true }; //@ stopping = true;
    nonblocking = true; //@ fcntl(listening_socket, F_SETFL, O_NONBLOCK);
    if :: restarted = accepting // in the main thread: accept(), if it waits, begins anew
    :: interrupted = accepting fi //@ pthread_kill(main_thread, SIGURG);
}
