// The view follows the text that comes, unless its reader has scrolled up.

const NEAR_PX = 12;

export class Follower {
  #scroller;
  #button;
  #following = true;
  #top = 0;
  #height = 0;

  constructor(scroller, button) {
    this.#scroller = scroller;
    this.#button = button;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    scroller.addEventListener("wheel", (event) => this.#wheeled(event), { passive: true });
    new ResizeObserver(() => this.grown()).observe(scroller);
  }

  // To be called when there is more, or less, than before.
  grown() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#show();
  }

  toEnd() {
    this.#following = true;
    this.grown();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const below = scrollHeight - scrollTop - clientHeight;
    // Text that was taken away, or more room, moves the view as well; a reader's first step up may be a small one.
    const up = scrollTop < this.#top && scrollHeight >= this.#height && below >= 1;
    if (up) this.#following = false;
    else if (below < NEAR_PX) this.#following = true;
    this.#show();
  }

  // A smooth scroll begins frames after its wheel turned: text that comes before must not hold it.
  #wheeled(event) {
    if (event.deltaY < 0 && this.#scroller.scrollTop > 0) this.#following = false;
  }

  #show() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    [this.#top, this.#height] = [scrollTop, scrollHeight];
    this.#button.hidden = this.#following || scrollHeight - scrollTop - clientHeight < NEAR_PX;
  }
}
