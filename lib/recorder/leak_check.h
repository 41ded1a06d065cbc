// The leak check: at exit, and when the program asks for it (Settings.leak_check).
//
// At exit it comes after everything else: after the program's atexit handlers, static destructors,
// and the destructors of all libraries, among which the loader runs ours in the middle. So that one
// only registers the check (RegisterLeakCheck), and libc calls it when it is through with the others.
// If there are leaks it calls exit once more with the code of leaks: libc goes on with what is left,
// the flushing of streams, and ends the process with that code. A process that ends by _exit,
// quick_exit or a signal is not checked.
#pragma once

namespace heapflare::recorder {

// On the thread that exits, from within a destructor.
void RegisterLeakCheck();

// 1: leaks were found and told of; 0: none; -1: they could not be looked for, which was told.
// `return_address`: of the function of ours that the program called.
int CheckLeaksNow(const void* return_address);

}  // namespace heapflare::recorder
