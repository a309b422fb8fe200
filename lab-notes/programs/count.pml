byte connected = 2;
bool locked;
active [2] proctype leave() { byte copy;
//  atomic { !locked -> locked = true };
    copy = connected;
    copy--;
    connected = copy;
//  locked = false
}
active proctype room() { timeout; assert(connected == 0) }
