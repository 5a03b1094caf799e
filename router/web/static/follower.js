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
    const up = scrollTop < this.#top && scrollHeight >= this.#height; // text that was taken away moves the view as well
    if (scrollHeight - scrollTop - clientHeight < NEAR_PX) this.#following = true;
    else if (up) this.#following = false;
    this.#show();
  }

  #show() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    [this.#top, this.#height] = [scrollTop, scrollHeight];
    this.#button.hidden = this.#following || scrollHeight - scrollTop - clientHeight < NEAR_PX;
  }
}
